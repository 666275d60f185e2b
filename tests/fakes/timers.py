"""Programs in the place of crontab and systemctl, and what the real ones make of the text that they are given."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

CRONTAB = """#!/bin/sh
table="$(dirname "$0")/table"
case "$1" in
  -l) [ -e "$table.broken" ] && { echo "crontab: cannot open: Permission denied" >&2; exit 1; }
      cat "$table" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
  -) cat > "$table" ;;
  *) exit 2 ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
[ -e "$(dirname "$0")/systemd-works" ] || { echo "Failed to connect to bus: No medium found" >&2; exit 1; }
[ "$2" = show-environment ] || echo "$*" >> "$(dirname "$0")/systemctl.log"
"""
LOGINCTL = """#!/bin/sh
[ -e "$(dirname "$0")/lingers" ] && echo Linger=yes || echo Linger=no
"""


def programs(folder: Path) -> Path:
    """Make the programs in a new folder for PATH. There is a cron, and no systemd until a file `systemd-works` is."""
    folder.mkdir()
    for name, program in (("crontab", CRONTAB), ("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL)):
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    return folder


def run_like_a_timer(command: str, log: Path) -> str:
    """What the log has after one run without any environment."""
    run = ["/bin/sh", "-c", command]
    done = subprocess.run(run, env={}, cwd="/", capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout + done.stderr == "", "cron would send mail"
    return log.read_text()


def as_cron_reads(line: str) -> str:
    """The command of a line: what follows five fields, with its escaped percent signs (crontab(5))."""
    command = line.rstrip("\n").split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)
    return command.replace("\\%", "%")


def as_systemd_reads(service: str) -> str:
    """The last argument of ExecStart, with its escapes, specifiers and dollars (systemd.service(5))."""
    (argument,) = re.findall(r'^ExecStart=/bin/sh -c "(.*)"$', service, re.MULTILINE)
    return re.sub(r"\\(.)|%(%)|\$(\$)", lambda found: next(filter(None, found.groups())), argument)
