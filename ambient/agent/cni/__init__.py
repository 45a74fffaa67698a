"""Pods that start: the node's half of the CNI plugin. An enrolled pod is captured before its first instruction."""
