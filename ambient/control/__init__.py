"""The control plane: who its callers are, what signs for them, and what it writes to the Kubernetes API."""
