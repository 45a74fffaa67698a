"""What the control plane costs by the size of the mesh: made-up Worlds, a real server, simulated agents."""
