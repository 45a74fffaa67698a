"""A cluster out of network namespaces: what the demo, the tests and the benchmarks run on."""

from ambient.lab.client import Lab
from ambient.lab.errors import Environment, Gone, LabError, Misused, NotReady, Refused

__all__ = ["Environment", "Gone", "Lab", "LabError", "Misused", "NotReady", "Refused"]
