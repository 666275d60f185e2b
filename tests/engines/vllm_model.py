"""Runs in vLLM's own Python, which has neither the launcher nor these tests: `python vllm_model.py COMMAND`.

convert GGUF FOLDER   writes a Hugging Face folder with the weights of a GGUF file, dequantised to float32
parse                 reads `vllm serve` argument lists, JSON on standard input; prints what vLLM makes of each
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer of `gguf` to `folder`. Its weights are unpacked by the gguf package, not llama.cpp."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # else the model counts as quantised and cannot be saved
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def parse(commands: list[list[str]]) -> list[dict[str, Any]]:
    """Per command the attributes of vLLM's parsed arguments, or {"error": what vLLM says against it}."""
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    (serve,) = cmd_init()
    serve.subparser_init(parser.add_subparsers(dest="subparser"))
    return [_parsed(parser, serve.validate, words) for words in commands]


def _parsed(
    parser: argparse.ArgumentParser, validate: Callable[[argparse.Namespace], None], words: list[str]
) -> dict[str, Any]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = parser.parse_args(words)
        validate(parsed)
    except SystemExit:
        return {"error": said.getvalue().strip().splitlines()[-1]}
    except (TypeError, ValueError) as error:
        return {"error": str(error)}
    return vars(parsed)


def main(arguments: list[str]) -> None:
    """Run one command."""
    match arguments:
        case ["convert", gguf, folder]:
            convert(Path(gguf), Path(folder))
        case ["parse"]:
            print(json.dumps(parse(json.load(sys.stdin)), default=str))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
