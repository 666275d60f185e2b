"""Reports of runs: one HTML file, Markdown or PDF. Needs the packages of the extra `report`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher.errors import ConfigError
from launcher.results.report import html, markdown, pdf
from launcher.results.report.content import FLIPS, Report, gather
from launcher.results.report.samples import TEXT_LIMIT
from launcher.results.write import write_atomically

MAX_BYTES = 5_000_000


class Form(StrEnum):
    """Forms of a report, as suffixes name them."""

    HTML = "html"
    MARKDOWN = "md"
    PDF = "pdf"


_NAMES = {"htm": Form.HTML, "markdown": Form.MARKDOWN, **{form.value: form for form in Form}}


@dataclass(frozen=True, kw_only=True)
class Written:
    """A report. `size`: in bytes; `problems`: runs that could not be read, a line each."""

    path: Path
    size: int
    problems: tuple[str, ...] = ()


def form_of(path: Path, name: str | None = None) -> Form:
    """The form that a name, or else the suffix of a file, asks for. Raises ConfigError if there is none such."""
    asked = (name or path.suffix.removeprefix(".")).lower()
    if asked in _NAMES:
        return _NAMES[asked]
    known = ", ".join(f".{form}" for form in Form)
    raise ConfigError(f"-o {path}: the suffix names no form of a report; take {known}, or give --format")


def write(
    folders: Sequence[Path],
    output: Path,
    *,
    form: str | None = None,
    max_bytes: int = MAX_BYTES,
    text_limit: int = TEXT_LIMIT,
    force: bool = False,
    taken_over: Collection[str] = (),
) -> Written:
    """Write a report of runs by their folders, the first of which is the baseline of the others.

    `max_bytes`: of the HTML file; texts of samples are left out, and said, where they would not fit. `text_limit`:
    characters of one text; `force`: compare also what measures different things, and say so. `taken_over`: as `compare`
    has it.

    Raises:
        ConfigError: no such form, or the file cannot be written.
        NotFound, ResultsError: no run can be read.
    """
    asked = form_of(output, form)
    if not output.parent.is_dir():
        raise ConfigError(f"-o {output}: there is no folder {output.parent}")
    unique = list(dict.fromkeys(folder.resolve() for folder in folders))
    report = gather(unique, flips=0 if asked is Form.HTML else FLIPS, force=force, taken_over=taken_over)
    made = _render(report, asked, max_bytes, text_limit)
    try:
        write_atomically(output, made)
    except OSError as error:
        raise ConfigError(f"-o {output}: cannot be written: {error.strerror}") from None
    return Written(path=output, size=len(made), problems=tuple(run.problem for run in report.runs if run.problem))


def _render(report: Report, form: Form, max_bytes: int, text_limit: int) -> bytes:
    if form is Form.PDF:
        return pdf.render(report)
    if form is Form.MARKDOWN:
        return markdown.render(report).encode("utf-8", "replace")
    return html.render(report, max_bytes=max_bytes, text_limit=text_limit).encode("utf-8", "replace")


__all__ = ["MAX_BYTES", "TEXT_LIMIT", "Form", "Written", "form_of", "write"]
