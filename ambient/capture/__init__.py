"""The kernel edge: which of a node's traffic comes to the engine, by eBPF and one rule per pod. See capture.py.

The only user of libbpf and of rtnetlink.
"""

from ambient.capture.abi import Role
from ambient.capture.capture import Capture, Enrolled
from ambient.capture.errors import CaptureError, TableFullError
from ambient.capture.netns import PodNetns

__all__ = ["Capture", "CaptureError", "Enrolled", "PodNetns", "Role", "TableFullError"]
