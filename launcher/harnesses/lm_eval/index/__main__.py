"""`python -m launcher.harnesses.lm_eval.index --build`: make the shipped index anew from the installed lm-eval."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from launcher.harnesses.lm_eval.index import SHIPPED_VERSION, installed_version, shipped_file


def main() -> None:
    """Write the index, to the file inside the package unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", action="store_true", required=True, help="write the index")
    parser.add_argument("--output", type=Path, default=shipped_file(), help="file to write; default: the shipped one")
    arguments = parser.parse_args()
    if arguments.output == shipped_file() and installed_version() != SHIPPED_VERSION:
        sys.exit(
            f"lm-eval {SHIPPED_VERSION} is not installed (found: {installed_version()}); change SHIPPED_VERSION too"
        )
    from launcher.harnesses.lm_eval.index.build import build_index  # imports lm-eval, for seconds

    arguments.output.write_text(build_index(), encoding="utf-8")


if __name__ == "__main__":
    main()
