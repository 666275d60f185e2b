"""`nv-eval results`: scores of invocations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.cli.selection import add_selection_arguments, filters
from launcher.errors import ConfigError, NotFound, ResultsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.results.model import Record
    from launcher.results.select import Picked

FORMATS = ("table", "csv", "json", "parquet", "md", "markdown", "latex")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    add_selection_arguments(parser)
    parser.add_argument("--all", action="store_true", help="all invocations")
    parser.add_argument("--macro", action="store_true", help="also averages over the tasks of each invocation")
    parser.add_argument("--format", choices=FORMATS, default="table", metavar="F", help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file; parquet needs one")
    parser.add_argument(
        "--show", action="store_true", help="what makes the scores reproducible instead of the scores, as YAML"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    form = "json" if args.json else args.format
    if form == "parquet" and not args.output:
        raise ConfigError("--format parquet: is no text; say where to write it: -o FILE")
    picked = _picked(args)
    records = [record for one in picked if (record := one.record) is not None]
    if records and args.show:
        _write(args.output, _reproducibility(picked))
    elif records or (not picked and form != "table"):
        _print(records, form, args)
    elif not picked:
        swept = f"No point has begun; see: nv-eval status {' '.join(args.invocations)}\n"
        sys.stdout.write(swept if args.invocations else "No invocations.\n")
    return _report(picked, has_some=bool(records))


def _picked(args: argparse.Namespace) -> list[Picked]:
    from launcher.cli import clustered
    from launcher.results.select import pick

    clustered.bring_home(args.invocations)
    chosen = filters(args)
    return pick(args.invocations or ([] if args.all or chosen.chooses else _newest()), chosen)


def _newest() -> list[str]:
    from launcher.orchestrator.journal import Journal

    found = Journal.default().invocations(limit=1)
    if not found:
        raise NotFound("no invocation yet; start one with: nv-eval run")
    return [found[0].id]


def _print(records: Sequence[Record], form: str, args: argparse.Namespace) -> None:
    from launcher.results import table, table_text

    if form == "parquet":
        try:
            table.write_parquet(records, Path(args.output), macro=args.macro)
        except (OSError, ResultsError) as error:
            said = error.strerror if isinstance(error, OSError) else None
            raise ConfigError(f"-o {args.output}: cannot be written: {said or error}") from None
    elif form == "json":
        import msgspec

        _write(args.output, msgspec.json.encode(records).decode() + "\n")
    elif form == "csv":
        _write(args.output, table.to_csv(records, macro=args.macro))
    elif form in ("md", "markdown"):
        _write(args.output, table_text.to_markdown(records, macro=args.macro))
    elif form == "latex":
        _write(args.output, table_text.to_latex(records, macro=args.macro))
    elif args.output:
        _write(args.output, table_text.to_text(records, macro=args.macro))
    else:
        from launcher.cli.scores import print_table

        print_table(records, macro=args.macro)
        _print_points(records, args.invocations)
        return
    _say_taken_over(args.invocations)


def _print_points(records: Sequence[Record], words: Sequence[str]) -> None:
    """What each run sets that is a point of a sweep that was asked for."""
    from launcher.orchestrator import sweeps

    if not any(map(sweeps.is_sweep, words)):
        return
    from launcher.cli.text import plain
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    known = sweeps.taken_over(journal, words)
    for record in records:
        point = known.get(record.invocation) or sweeps.point_of(journal, record.invocation)
        if point is not None:
            mark = ", taken over" if record.invocation in known else ""
            sys.stdout.write(plain(f"{record.invocation}: {point.words}{mark}") + "\n")


def _say_taken_over(words: Sequence[str]) -> None:
    """Which runs of a table for other programs are not the sweep's own."""
    from launcher.orchestrator import sweeps

    if not any(map(sweeps.is_sweep, words)):
        return
    from launcher.cli.text import plain
    from launcher.orchestrator.journal import Journal

    for invocation, point in sweeps.taken_over(Journal.default(), words).items():
        sys.stderr.write(plain(f"nv-eval: {invocation}: taken over as point {point.number} ({point.words})") + "\n")


def _write(path: str | None, text: str) -> None:
    if not path:
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror}") from None


def _reproducibility(picked: Sequence[Picked]) -> str:
    """The records of all invocations, each as a YAML document."""
    import json

    import yaml

    documents = []
    for one in picked:
        path = one.folder / "provenance.json"
        try:
            documents.append(json.loads(path.read_bytes()))
        except FileNotFoundError:
            documents.append(
                {"invocation": one.id, "problem": "it has left no record: its launcher died before the end"}
            )
        except (OSError, ValueError, RecursionError) as error:
            documents.append({"invocation": one.id, "problem": f"{path}: broken: {error}"})
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)


def _report(picked: Sequence[Picked], *, has_some: bool) -> int:
    """Say which results cannot be read. Fails where nothing can, and where something is broken."""
    problems = [one for one in picked if one.problem]
    broken = [one for one in problems if one.is_broken]
    if problems and not has_some:
        error = ResultsError if broken else NotFound
        raise error("\n".join(one.problem for one in problems))
    for one in broken:
        sys.stderr.write(f"nv-eval: {one.problem}\n")
    missing = [one.id for one in problems if not one.is_broken]
    if missing:
        sys.stderr.write(f"nv-eval: no scores have come home of {', '.join(missing)}\n")
    return ResultsError.exit_code if broken else 0
