"""What control plane and agents say to each other: the World as resources, certificates, reports of nodes.

The only user of protobuf and h2. Knows neither where a World comes from nor what is done with it.
"""
