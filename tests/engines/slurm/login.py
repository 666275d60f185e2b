"""A login node: an OpenSSH server on loopback, whose clients find the cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cli import wait_for
from tests.engines.slurm.cluster import PATH

SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
LogLevel VERBOSE
SetEnv SLURM_CONF={conf}
"""
CLIENT = """\
Host cluster
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
"""


@dataclass
class Login:
    """A running server. `bin` has an `ssh` whose ~/.ssh/config is the one here, as OpenSSH asks no HOME for it."""

    folder: Path
    port: int

    @property
    def bin(self) -> Path:
        """Folder to put in front of PATH."""
        return self.folder / "bin"

    def connections(self) -> int:
        """How many clients have logged in so far."""
        return (self.folder / "log").read_text().count("Accepted publickey")

    def start(self) -> None:
        """Start the server."""
        Path("/run/sshd").mkdir(exist_ok=True)
        command = ["/usr/sbin/sshd", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        subprocess.run(command, check=True, capture_output=True)
        wait_for((self.folder / "sshd.pid").exists, "sshd listens", 10)

    def stop(self) -> None:
        """End the server and all its connections, as a login node that reboots."""
        pid = int((self.folder / "sshd.pid").read_text())
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ProcessLookupError):
                if _parent(int(entry.name)) == pid:
                    os.kill(int(entry.name), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        (self.folder / "sshd.pid").unlink()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextlib.contextmanager
def login_node(folder: Path, port: int = 18022) -> Iterator[Login]:
    """A server with keys of its own."""
    (folder / "bin").mkdir(parents=True)
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    conf = os.environ["SLURM_CONF"]
    (folder / "sshd_config").write_text(SSHD.format(port=port, folder=folder, conf=conf))
    (folder / "config").write_text(CLIENT.format(port=port, folder=folder))
    program = folder / "bin" / "ssh"
    ssh = f'/usr/bin/ssh -F "{folder}/config" "$@"\ncode=$?'
    program.write_text(f'#!/bin/sh\n{ssh}\necho $code >> "{folder}/bin/codes"\nexit $code\n')
    program.chmod(0o755)
    made = Login(folder, port)
    made.start()
    try:
        yield made
    finally:
        with contextlib.suppress(FileNotFoundError):
            made.stop()


__all__ = ["PATH", "Login", "login_node"]
