"""The node agent: one process per node that decides, and keeps the engine that carries."""
