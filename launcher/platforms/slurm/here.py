"""Whether this machine is a login node of a Slurm cluster. Asks nobody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CONFIGS = (
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/run/slurm/conf/slurm.conf",
    "/usr/local/etc/slurm.conf",
)
"""Where Slurm's commands find their cluster, if SLURM_CONF does not say it."""
ABSENT = "no Slurm on this machine; execution.hostname names a login node"


def is_here() -> bool:
    """Whether Slurm's commands are installed, and know a cluster."""
    if shutil.which("squeue") is None:
        return False
    return bool(os.environ.get("SLURM_CONF")) or any(Path(path).is_file() for path in CONFIGS)
