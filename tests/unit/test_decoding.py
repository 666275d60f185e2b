"""A type that many threads use for the first time at once: what msgspec alone ends the process for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launcher.decoding import convert, decode, decode_yaml

PROGRAM = """
import dataclasses, sys, threading
from launcher.decoding import convert, decode

sys.setswitchinterval(1e-6)
for _ in range({rounds}):
    inner = dataclasses.make_dataclass("Inner", [(f"f{{i}}", int | None, None) for i in range(40)])
    kind = dataclasses.make_dataclass("Outer", [(f"g{{i}}", inner | None, None) for i in range(40)])
    together = threading.Barrier(6)

    def use() -> None:
        together.wait()
        convert({{"g1": {{"f1": 1}}}}, kind)
        decode(b'[{{"f2": 2}}]', list[inner])

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("alive")
"""


def test_types_are_learnt_in_one_thread_after_the_other() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(rounds=100)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_what_is_not_of_its_type_is_an_error_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="Expected `int`"):
            convert("1", int)
        with pytest.raises(ValueError, match="Expected `int`"):
            decode(b'"x"', int)
    assert (convert("1", int, strict=False), decode('"1"', int, strict=False)) == (1, 1)
    assert decode_yaml("a: [1, 2]", dict[str, list[int]]) == {"a": [1, 2]}
