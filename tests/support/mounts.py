"""Disks of a process's own."""

from __future__ import annotations

import shutil
import subprocess


def can_mount() -> bool:
    """Whether a process here may have mounts that others do not see, as a machine has."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    )
    return tried.returncode == 0
