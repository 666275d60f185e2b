"""The embedded small model in the place of a model server: `python -m launcher.emulators.stand_in PORT COMMAND...`.

COMMAND is what an image of vLLM, SGLang, TensorRT-LLM, llama.cpp or NIM would have run. What it (or, for NIM, the
environment) says of the model's name and of the longest context is passed on. A command that starts no such server
runs as it is.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath

LONGEST_CONTEXT = 8192
"""Tokens that the small model was trained for."""

_PROGRAMS = {"vllm", "vllm.entrypoints.openai.api_server", "sglang.launch_server", "trtllm-serve", "llama-server"}
_NAMES = ("--served-model-name", "--served_model_name", "--alias", "-a")
_MODELS = ("--model", "--model-path", "--hf-repo", "-hf")
_CONTEXTS = ("--max-model-len", "--context-length", "--max_seq_len", "--ctx-size", "-c")


def main(arguments: Sequence[str]) -> None:
    """Become the small model's server, or the command itself."""
    port, *command = arguments
    words = words_of(command)
    if not is_server(words):
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    server = [sys.executable, "-m", "launcher.servers.smollm", *options(port, words, os.environ)]
    os.execv(sys.executable, server)  # noqa: S606


def is_server(words: Sequence[str]) -> bool:
    """Whether a command starts a model server. Without a program it is the image's own, which does."""
    return not words or words[0].startswith("-") or any(PurePath(word).name in _PROGRAMS for word in words)


def options(port: str, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Arguments of the small model's server. A quarter of the cores each: endpoints come in numbers."""
    name = served_name(words, environment)
    context = _value(words, _CONTEXTS) or environment.get("NIM_MAX_MODEL_LEN") or ""
    found = ["--host", "127.0.0.1", "--port", port, "--threads", str(max(1, (os.cpu_count() or 1) // 4))]
    if context.isdecimal():
        found += ["--context", str(min(int(context), LONGEST_CONTEXT))]
    return [*found, "--served-name", name] if name else found


def served_name(words: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """What a server calls its model; None where neither its command nor its environment says so."""
    return _value(words, _NAMES) or environment.get("NIM_SERVED_MODEL_NAME") or _model(words)


def words_of(command: Sequence[str]) -> Sequence[str]:
    """The words of a command; of a shell's, those of its script."""
    is_script = len(command) == 3 and PurePath(command[0]).name in ("sh", "bash") and command[1] in ("-c", "-lc")
    return shlex.split(command[2], comments=True) if is_script else command


def _model(words: Sequence[str]) -> str | None:
    """The model that a command names; servers answer to it where they are given no other name."""
    named = _value(words, _MODELS)
    if named is None and "trtllm-serve" in words:
        return PurePath(_after("trtllm-serve", words)).name or None
    return named or _after("serve", words) or None


def _value(words: Sequence[str], flags: Sequence[str]) -> str | None:
    """The value of an option; of several, the last one counts."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, given, value = word.partition("=")
        if flag in flags:
            found = value if given else following
    return found


def _after(program: str, words: Sequence[str]) -> str:
    following = words[words.index(program) + 1 :] if program in words else []
    return following[0] if following and not following[0].startswith("-") else ""


if __name__ == "__main__":
    main(sys.argv[1:])
