"""docs/benchmarks.md and its charts, written from benchmarks/figures.json: python -m benchmarks.page.

The charts are drawn by Vega-Lite (the extra `report`). Each says in a comment what it was drawn from, so that a test
can tell whether it is up to date without drawing it again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.fleet import BARRIER
from benchmarks.misses import EXPLAINED

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, CHARTS = DOCS / "benchmarks.md", DOCS / "benchmarks"
HEAD = """\
<!-- Written by python -m benchmarks.page from benchmarks/figures.json; change those, not this file. -->
# What it costs

`make bench` measures all that stands here, compares it with the figures that were kept last, and says what misses its
target; `python -m benchmarks --help` has the parts one by one, `--keep` keeps the figures and writes this page.

- Figures are ratios taken in one run where they can be, as seconds depend on the machine; times are context. Where
  something is run several times, the figure is the median.
- The Lepton workspace is the emulated one, with containers that are simulated: start-up and job times are drawn from
  log-normal distributions (medians 20 and 15 s) with a fixed seed. The program is the real one in a process of its own.
  The emulator's work is done on the same processors.
- The *bound* is what no launcher could beat: the longest start-up and job of one task or, where places are limited,
  list scheduling of all of them on so many places.
"""
TITLES = {
    "startup": "Start-up",
    "fleet": "Fleets: time, GPU time, control plane",
    "recovery": "Recovery",
    "paper": "Scale on paper",
    "throughput": "Evaluation throughput",
    "peers": "Peers",
}
INTROS = {
    "startup": """\
Wall time of a command over that of a bare Python (`python -c pass`), in a home where 1,000 invocations of 10 tasks have
run.""",
    "fleet": """\
N endpoints with a job each, all at once unless it says otherwise, and each job as soon as its own endpoint answers.

- `barrier`: jobs wait until all endpoints answer (`execution.start_jobs: all_ready`), which the launcher asks itself;
  `at best`: what no launcher could beat then, by calculation from the times that were drawn.
- `without teardown per task`: what the same run would have billed if all endpoints were deleted when the last job has
  ended. The program has no such mode, so it is not run but added up from the times of the run beside it, exactly.
- `slots`: `limits.max_parallel_endpoints`, over the bound of list scheduling.
- `virtual clock`: the same program and emulator in one process whose waiting takes no time, so that only what the
  launcher decides is measured.
- Slopes are straight lines through all runs without a mode; r2 says how straight they are.

So that all of it takes less than a quarter of an hour, fleets of 3, 10 and 30, that of 100 with the barrier, and those
with 8 and 32 slots, which are of 24 and 96 tasks, run at the same time, each in processes of its own: together they
leave the processors idle. With `--quick` those of 10, and that of 100 with the barrier, do. All others run alone.""",
    "recovery": "A launcher is ended by `kill -9` when half of its jobs run, and another goes on.",
    "paper": """\
The orchestrator and its journal alone, on a virtual clock, with a platform in memory: start-up and job times have
medians of 55 and 148 s. An event is something that the orchestrator brings about or notices: eight of each task.""",
    "throughput": """\
Real evaluations by lm-eval, on an HTTP server that serves so many requests at once, each for as long as its tokens
take. Overhead is the median over rounds in which all ways take turns; what may be added is 2 % of the evaluation and
one second. `auto` is `evaluation.concurrency: auto`, in samples a second from the first request to the last answer,
over the best of 1, 2, 4 to 64 and the server's own number.""",
    "peers": """\
Each program in an environment of its own, as pip installs it: wall time over a bare Python, commands of all taking
turns, the nearest that each has. The target is the fastest peer of the same kind: for the dry run those that compose a
config or check benchmarks, which torchx' does not. Then fleets by the incumbent on the emulated workspace, with the
start-up and job times of ours; its time is to the end of the last job, which it does not wait for. It polls each
endpoint by a program of its own that gets 30 s: on a busy machine a fleet may fail by that which would not on a quiet
one.""",
}


def page(document: dict[str, Any]) -> str:
    """The page in Markdown."""
    machine, benches = document["machine"], _benches(document)
    parts = [HEAD, f"Taken with Python {machine['python']} on {machine['cpus']} processors.\n"]
    missed = [one for one in document["figures"] if _meets(one) is False]
    parts.append(_missed(missed, [one for one in document["figures"] if one["target"] is not None]))
    drawn = charts(document)
    for name in benches:
        parts.append(f"## {TITLES.get(name, name.replace('_', ' ').capitalize())}\n")
        parts += [f"{text}\n" for text in (INTROS.get(name, ""), _taken(document, name)) if text]
        parts += [f"![{spec['description']}](benchmarks/{chart}.svg)\n" for chart, spec in drawn[name].items()]
        parts.append(_table([one for one in document["figures"] if one["bench"] == name]))
    return "\n".join(parts)


def _benches(document: dict[str, Any]) -> list[str]:
    found = list(dict.fromkeys(one["bench"] for one in document["figures"]))
    return sorted(found, key=lambda name: list(TITLES).index(name) if name in TITLES else len(TITLES))


def _taken(document: dict[str, Any], name: str) -> str:
    taken = document.get("taken", {}).get(name)
    if taken is None:
        return ""
    low, high = sorted(taken["load"])
    busy = (
        " The machine was busy with other things: times and what follows from them are worse than on a quiet one."
        if low > document["machine"]["cpus"]
        else ""
    )
    quick = " with `--quick`" if taken["quick"] else ""
    return f"Taken in {taken['seconds']} s{quick}, at a load of {low:g} to {high:g}.{busy}"


def _missed(missed: Sequence[dict[str, Any]], aimed: Sequence[dict[str, Any]]) -> str:
    if not missed:
        return f"All {len(aimed)} targets are met.\n"
    lines = [f"{len(aimed) - len(missed)} of {len(aimed)} targets are met. Those that are not:\n"]
    for one in missed:
        reason, idea = why(one)
        value, aim = figures.shown(one["value"], one["unit"]), _aim(one)
        lines.append(f"- **{one['bench']}: {one['name']}**: {value}, target {aim}. {reason} Next: {idea}")
    return "\n".join(lines) + "\n"


def why(figure: dict[str, Any]) -> tuple[str, str]:
    """Why a figure misses its target by the profile, and the next idea."""
    key = f"{figure['bench']}: {figure['name']}"
    found = next((one for one in EXPLAINED if one.pattern.search(key)), None)
    if found is None:
        return "Nobody has looked at why yet.", f"a profile of `python -m benchmarks {figure['bench']}`."
    return found.reason, found.idea


def _meets(one: dict[str, Any]) -> bool | None:
    if one["target"] is None:
        return None
    return bool(one["value"] >= one["target"] if one["more_is_better"] else one["value"] <= one["target"])


def _aim(one: dict[str, Any]) -> str:
    if one["target"] is None:
        return ""
    return f"at {'least' if one['more_is_better'] else 'most'} {figures.shown(one['target'], one['unit'])}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| what | figure | target | | before | |", "| --- | ---: | --- | --- | ---: | --- |"]
    for one in rows:
        before = one.get("before")
        was = "" if before is None else figures.shown(before, one["unit"])
        word = {True: "met", False: "**missed**", None: ""}[_meets(one)]
        cells = (one["name"], figures.shown(one["value"], one["unit"]), _aim(one), word, was, one["note"])
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


# --- charts -----------------------------------------------------------------------------------------------------------


def charts(document: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Vega-Lite specifications of all charts, by benchmark and by file name."""
    drawn: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in _benches(document)}
    for name in drawn:
        rows = document["series"].get(name, [])
        if name == "fleet" and rows:
            drawn[name] = dict(_fleet(rows))
        elif name == "paper" and len(rows) > 1:
            drawn[name] = dict(_paper(rows))
        else:
            bars = [one for one in document["figures"] if one["bench"] == name and one["unit"] == "x"]
            bars = bars if name != "peers" else [one for one in bars if one["target"] is None]
            drawn[name] = {name: _bars(name, bars)} if len(bars) > 2 else {}
    return drawn


def _fleet(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Against the number of tasks: medians of the runs of each size, what they are compared with beside them."""
    ours, barrier = [[row for row in rows if row["mode"] == mode] for mode in ("", BARRIER)]
    for file, title, lines in (
        ("fleet-time", "time over the bound", {_AS_READY: (ours, "ratio"), _ALL_READY: (barrier, "ratio")}),
        (
            "fleet-billed",
            "billed endpoint time over what is needed",
            {
                _AS_READY: (ours, "billed"),
                _ALL_READY: (barrier, "billed"),
                "without teardown per task": (ours, "kept"),
            },
        ),
        ("fleet-requests", "requests of a task", {"": (ours, "requests")}),
        ("fleet-cpu", "processor time of a task (ms)", {"": (ours, "cpu_ms")}),
        ("fleet-memory", "peak memory (MiB)", {"": (ours, "memory")}),
        (
            "fleet-lag",
            "from a fact to what follows (s)",
            {"an endpoint is ready: its job": (ours, "job_lag"), "a job ends: deletion": (ours, "delete_lag")},
        ),
    ):
        values = [
            {"N": size, "y": statistics.median(row[key] for row in of if row["tasks"] == size), "line": line}
            for line, (of, key) in lines.items()
            for size in sorted({row["tasks"] for row in of})
        ]
        yield file, _line(f"Fleets of N tasks: {title}", "N", title, values)


_AS_READY, _ALL_READY = "as each is ready", "with a barrier"
"""How lines are called by when jobs start."""


def _paper(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for file, title, value in (
        ("paper-cpu", "processor time of a task (ms)", lambda row: 1000 * row["cpu"] / row["tasks"]),
        ("paper-time", "time over the bound", lambda row: row["virtual_seconds"] / row["bound"]),
    ):
        values = [{"N": row["tasks"], "y": value(row)} for row in rows]
        yield file, _line(f"The orchestrator with N tasks on a virtual clock: {title}", "N", title, values)


def _line(description: str, x: str, y: str, values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lines of points `N` and `y`; where points say of which `line` they are, in colours."""
    lines = list(dict.fromkeys(one.get("line", "") for one in values))
    colours = {"scale": {"domain": lines, "range": _COLOURS[: len(lines)]}, "title": None}
    coloured = {"color": {"field": "line", "type": "nominal", "legend": {"orient": "bottom"}, **colours}}
    named = [{"x": one["N"], "y": round(one["y"], 4), "line": one.get("line", "")} for one in values]
    plain = [{"x": one["x"], "y": one["y"]} for one in named]
    return {
        "description": description,
        "data": {"values": named if len(lines) > 1 else plain},
        "width": 420,
        "height": 180,
        "mark": {"type": "line", "point": True} | ({} if len(lines) > 1 else {"color": _COLOURS[0]}),
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "scale": {"type": "log"}, "title": x, "axis": {"grid": False}},
            "y": {"field": "y", "type": "quantitative", "scale": {"zero": False}, "title": y},
            **(coloured if len(lines) > 1 else {}),
        },
        "config": {"background": "white", "font": "sans-serif"},
    }


def _bars(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [{"what": one["name"], "x": round(one["value"], 3)} for one in rows]
    wide = max(one["x"] for one in values) > 100 * min(one["x"] for one in values)
    times = {"field": "x", "type": "quantitative", "title": "times"} | ({"scale": {"type": "log"}} if wide else {})
    return {
        "description": f"{TITLES.get(name, name)}: how many times as long as what it is compared with",
        "data": {"values": values},
        "width": 420,
        "mark": {"type": "point", "filled": True, "size": 70, "color": _COLOURS[0]}
        if wide
        else {"type": "bar", "color": _COLOURS[0]},
        "encoding": {
            "y": {"field": "what", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 320}},
            "x": times,
        },
        "config": {"background": "white", "font": "sans-serif"},
    }


_COLOURS = ["#0b62a4", "#d1610a", "#6b6b6b"]


def mark(spec: dict[str, Any]) -> str:
    """The comment that a chart drawn from this begins with."""
    return f"<!-- drawn from {hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]} -->"


def write(document: dict[str, Any]) -> None:
    """Write the page, draw the charts that are not up to date, and remove those that are no more."""
    import vl_convert

    PAGE.write_text(page(document))
    CHARTS.mkdir(exist_ok=True)
    wanted = {CHARTS / f"{name}.svg": spec for made in charts(document).values() for name, spec in made.items()}
    for path in set(CHARTS.glob("*.svg")) - set(wanted):
        path.unlink()
    for path, spec in wanted.items():
        if not path.is_file() or not path.read_text().startswith(mark(spec)):
            path.write_text(f"{mark(spec)}\n{vl_convert.vegalite_to_svg(spec)}\n")


def main() -> int:
    """Write the page from the figures that were kept."""
    document = figures.kept()
    if not document["figures"]:
        print("benchmarks.page: no figures yet; run: python -m benchmarks --keep", file=sys.stderr)
        return 1
    write(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
