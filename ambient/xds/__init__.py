"""What control plane and agents say to each other. The only package that uses gRPC and protobuf."""
