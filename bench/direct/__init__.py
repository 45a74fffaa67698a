"""What a connection costs with the mesh's programs, past the engine."""
