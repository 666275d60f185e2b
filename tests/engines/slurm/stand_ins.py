"""Programs in the place of `ray`, `vllm` and SGLang: they write down what they got, and the server serves.

Run as a program, this file is whichever of them its name says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.e2e.cli import ROOT

SAID = "said"


def install(folder: Path) -> Path:
    """Make the programs; returns the folder for PATH and PYTHONPATH."""
    (folder / "sglang").mkdir(parents=True)
    for name in ("ray", "vllm", "sglang/launch_server.py"):
        (folder / name).write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        (folder / name).chmod(0o755)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def said(folder: Path) -> list[dict[str, Any]]:
    """What they have written down, in the order of time."""
    path = folder / SAID
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted(lines, key=lambda line: float(line["at"]))


class StandIn:
    """One of them."""

    def __init__(self, path: Path, words: list[str]) -> None:
        self.name = path.stem
        self.folder = path.parent.parent if path.parent.name == "sglang" else path.parent
        self.words = words

    def say(self) -> None:
        """Write down that it begins."""
        kept = ("SLURM_PROCID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")
        line = {"who": self.name, "words": self.words, "at": time.time()}
        with (self.folder / SAID).open("a") as out:
            out.write(json.dumps({**line, **{name: os.environ.get(name, "") for name in kept}}) + "\n")

    def option(self, name: str) -> str:
        """What follows an option."""
        return self.words[self.words.index(name) + 1]

    def run(self) -> None:
        """What the program does."""
        if self.name == "ray":
            self.ray()
        self.say()
        if self.name == "vllm" or self.option("--node-rank") == "0":
            self.serve()
        self.wait()

    def ray(self) -> None:
        """A node joins when the head is there, and the head goes on in the background."""
        begun = [line for line in said(self.folder) if line["who"] == "ray"]
        if self.words[0] == "status":
            print("Node status\nActive:", *(f" 1 node_{number}" for number in range(len(begun))), sep="\n")
            sys.exit()
        if "--head" not in self.words and not begun:
            sys.exit("no head answers")
        self.say()
        if "--head" in self.words:
            sys.exit()
        self.wait()

    def serve(self) -> None:
        """The server that stands behind it."""
        name = self.option("--served-model-name")
        where = ["--host", self.option("--host"), "--port", self.option("--port")]
        self.become("-m", "tests.servers.openai_server", *where, "--model", name)

    def wait(self) -> None:
        """Until somebody ends it."""
        self.become("-c", "import time; time.sleep(600)")

    def become(self, *words: str) -> None:
        """Go on as another program of Python."""
        os.execve(sys.executable, [sys.executable, *words], {**os.environ, "PYTHONPATH": str(ROOT)})


if __name__ == "__main__":
    StandIn(Path(sys.argv[0]).absolute(), sys.argv[1:]).run()
