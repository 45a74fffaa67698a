"""The Kubernetes API as a source: list, watch, and the World that follows."""
