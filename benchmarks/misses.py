"""Why figures miss their targets, as profiles show it, and what would be tried next; the page prints it there."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Explained:
    """Figures whose name fits `pattern`."""

    pattern: re.Pattern[str]
    reason: str
    idea: str


EXPLAINED = (
    Explained(
        re.compile(r"^fleet: N = 1000, requests of a task"),
        "Six is the floor of what each task must ask by itself: create the endpoint, submit the job, read its "
        "log, remove the job, delete the endpoint, and read that it is gone, which only its own route may "
        "say. On top of it come the lists of all endpoints and jobs (about 170 in a run, whatever N is) and a "
        "look at why an endpoint is not ready now and then.",
        "a list that the platform calls complete would prove several deletions at once and save up to one of the six.",
    ),
    Explained(
        re.compile(r"^fleet: N = \d+, time over the bound"),
        "On a virtual clock, where computing takes no time, the same run is at 1.03 to 1.04: the list of jobs "
        "is asked for every one to two seconds by then, and the longest task waits for it twice, by chance "
        "almost not or all of it. The rest is processor time of the launcher and of the emulator, which share the "
        "processors.",
        "lists as often as at the beginning in a run of minutes, for a few more requests of each task.",
    ),
    Explained(
        re.compile(r"^fleet: .*billed"),
        "An endpoint is billed while its job's end is noticed (half the time between two lists), while the "
        "job's log is read, and until its deletion is asked for; on a busy machine each of these waits for a "
        "processor.",
        "lists that come sooner when jobs say in their progress that they are about to end.",
    ),
    Explained(
        re.compile(r"^fleet: .*slots"),
        "A place is free for the next task when the platform has said that the endpoint before it is gone. What is "
        "deleted is asked for by itself where others wait; the lists that show a ready endpoint and the end of its job "
        "are paid once for each wave of tasks, a second each by then.",
        "lists as often as at the beginning, where places are few: they pay for themselves.",
    ),
    Explained(
        re.compile(r"^fleet: .*processor time"),
        "A third of the launcher's time is the HTTP client's, a millisecond for each request; a tenth is the "
        "journal's, the rest is spread over decisions and lists.",
        "requests that are built once and not parsed and merged with the base address anew.",
    ),
    Explained(
        re.compile(r"^fleet: .*memory"),
        "50 MB before the first task are Python with Hydra, the HTTP client and SQLite. The rest is the list of jobs, "
        "of up to 500 on a page: each has the runner's source in what it runs, 17 kB that the workspace sends back "
        "with every list.",
        "jobs take the runner from where it is stored.",
    ),
    Explained(
        re.compile(r"^startup: nv-eval (status|--help)"),
        "The standard library's argparse, dataclasses, pathlib, sqlite3 and json alone take 3.7 times a bare Python.",
        "dataclasses bring inspect, the largest of them; named tuples would not.",
    ),
    Explained(
        re.compile(r"^startup: dry run"),
        "Hydra is three quarters of it; the rest is the typed config and the plan.",
        "fewer dataclasses, each of which is compiled when it is imported.",
    ),
    Explained(
        re.compile(r"^startup: "),
        "It reads what each past invocation has left.",
        "a table of what has ended in the journal itself.",
    ),
    Explained(
        re.compile(r"^peers: dry run: "),
        "Ours composes with Hydra, which is three quarters of it, and plans and checks three tasks.",
        "the plan of before, while neither files nor overrides have changed.",
    ),
    Explained(
        re.compile(r"^peers: ls tasks: "),
        "The fastest peer, torchx, names eleven components; ours searches fourteen thousand tasks and groups. The "
        "processor time beside it says how much of the difference is the load of the machine.",
        "reading the index by its names alone, without the lines between them.",
    ),
    Explained(
        re.compile(r"^throughput: .*auto over"),
        "Before the first answers nothing tells how many the server takes at once; on a short task that is a large "
        "part of all.",
        "a first number by what kind of server it is.",
    ),
    Explained(
        re.compile(r"^throughput: .*runner over"),
        "The runner asks the endpoint a few questions before it starts the driver: health, models, a completion, and "
        "whether log-probabilities are right. The rest is the load of the machine.",
        "asking while lm-eval is being imported.",
    ),
)
