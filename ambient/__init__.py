"""Ambient: a service mesh without sidecars. Python decides; eBPF and a small engine carry the bytes."""

__version__ = "0.1.0"
