"""What the mesh costs: none, ours across nodes and on one, and a pair of Envoys, in one interleaved run on the lab."""
