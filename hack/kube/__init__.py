"""A real Kubernetes of several nodes on one machine: for the cluster lane's tests, and for people (`make kube-up`)."""

from hack.kube.cluster import Cluster, down
from hack.kube.errors import ClusterError

__all__ = ["Cluster", "ClusterError", "down"]
