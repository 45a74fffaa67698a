"""The Kubernetes API as a source: list, watch, and the World that follows. Who needs only a directory never loads this.

`watch` means what `ambient.sources.directory.watch` means; `connect` makes the client for it and for whatever else is
said to the API server; `Outcomes` tells what became of each object.
"""

from ambient.sources.kubernetes.client import ApiError, Client, NoCluster, connect
from ambient.sources.kubernetes.outcomes import Outcome, Outcomes
from ambient.sources.kubernetes.source import watch

__all__ = ["ApiError", "Client", "NoCluster", "Outcome", "Outcomes", "connect", "watch"]
