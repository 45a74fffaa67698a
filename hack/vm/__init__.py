"""The kernel lane on the oldest kernel that is promised: Debian 12's, in virtual machines that run this checkout."""

from hack.vm.errors import VmError

__all__ = ["VmError"]
