"""Starts NVIDIA's evaluation program inside a job; its source is copied there, so it needs the standard library only.

Usage: nemo_run.py RUN_CONFIG MODEL_URL OUTPUT_DIR
"""

import os
import re
import shutil
import sys
from pathlib import Path

PROGRAMS = ("nemo-evaluator", "eval-factory")
SAFE_PATH = re.compile(r"[\w./+@%:=-]+")


def find_program() -> str | None:
    """The program beside this interpreter, else the one on PATH, newest name first."""
    beside = str(Path(sys.executable).parent)
    found = [shutil.which(name, path=path) for path in (beside, None) for name in PROGRAMS]
    return next((program for program in found if program), None)


def main(run_config: str, model_url: str, output_dir: str) -> None:
    """Become the program. Exits with status 127 if it is not installed."""
    program = find_program()
    if program is None:
        sys.stderr.write(f"neither {' nor '.join(PROGRAMS)} is beside {sys.executable} or on PATH\n")
        sys.exit(127)
    # It calls its harness by bare name: the one of its own installation must be found first.
    os.environ["PATH"] = os.pathsep.join((str(Path(program).parent), os.environ.get("PATH", os.defpath)))
    if not SAFE_PATH.fullmatch(output_dir):
        # It pastes the folder into a shell command without quotes.
        os.chdir(output_dir)
        output_dir = "."
    arguments = ["run_eval", "--run_config", run_config, "--model_url", model_url, "--output_dir", output_dir]
    os.execv(program, [program, *arguments])  # noqa: S606  an argument list, no shell


if __name__ == "__main__":
    main(*sys.argv[1:])
