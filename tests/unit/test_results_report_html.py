"""The HTML form of a report: what is in the file, and what is not. How it behaves is tested in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from launcher.results.report import write
from launcher.results.report.content import gather
from launcher.results.report.samples import MOST_ROWS, Packed, pack
from tests.unit.past_runs import PastTask, write_run
from tests.unit.report_runs import HOSTILE, SpokenTask, WordyTask, add_failures

ROOM = 1_000_000
TASK = PastTask("t", {"acc": [1, 0, 1, 0, 1, 1]})


class Page(HTMLParser):
    """Tags with their attributes, and what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in self.raw:
            self.raw[self.cdata_elem].append(data)


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def texts(packed: Packed, number: int = 0) -> list[Any]:
    """Texts of the samples of one set that have any."""
    return [sample for chunk, _ in packed.sets[number]["chunks"] for sample in unpacked(packed.chunks[chunk])]


def packed(*folders: Path, budget: int = ROOM, text_limit: int = 4000) -> Packed:
    return pack(gather(folders).runs, budget=budget, text_limit=text_limit)


def test_the_page_runs_its_own_script_alone_and_loads_nothing(tmp_path: Path) -> None:
    text = write([write_run(tmp_path, "aaaa", TASK)], tmp_path / "r.html").path.read_text()
    page = Page(text)

    policies = [about["content"] for tag, about in page.tags if about.get("http-equiv") == "Content-Security-Policy"]
    digests = {
        kind: base64.b64encode(hashlib.sha256(page.raw[kind][-1].encode()).digest()).decode() for kind in page.raw
    }
    assert len(policies) == 1 and str(policies[0]).startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digests['script']}'" in policies[0]
    assert f"style-src 'sha256-{digests['style']}'" in policies[0]
    links = [value for _, about in page.tags for name, value in about.items() if name in ("src", "href", "action")]
    assert [link for link in links if not str(link).startswith(("#", "data:,"))] == []
    assert not any(name.startswith("on") or name == "style" for _, about in page.tags for name in about)


def test_what_strangers_wrote_is_text_everywhere(tmp_path: Path) -> None:
    evil = SpokenTask("<b>t<b>", {"acc": [1, 0] * 4}, key="<script>alert(1)<script>")
    folder = write_run(tmp_path, "aaaa", evil)
    add_failures(folder)
    record = json.loads((folder / "results.json").read_text())
    record["model"]["served_name"] = "</title></script><script>alert(3)</script>"
    (folder / "results.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text("x: </pre><script>alert(2)</script>")
    text = write([folder], tmp_path / "r.html").path.read_text()
    page = Page(text)

    assert [about.get("type") for tag, about in page.tags if tag == "script" and "type" not in about] == [None]
    assert not re.search(r"<script>alert|<b>t|<b>while|<img", text)
    assert not any(tag in ("img", "iframe", "b") for tag, _ in page.tags)


def test_hostile_texts_come_through_unchanged_but_for_half_characters_which_stand_as_numbers(tmp_path: Path) -> None:
    found = packed(write_run(tmp_path, "aaaa", SpokenTask("t", {"acc": [1] * len(HOSTILE)})))
    expected = [text.replace("\ud83d", r"\ud83d").replace("\udc00", r"\udc00") for text in HOSTILE]

    assert [prompt for prompt, _, _ in texts(found)] == expected
    assert [answers for _, _, answers in texts(found)] == [[text] for text in expected]


def test_runs_share_what_is_the_same_and_keep_what_differs(tmp_path: Path) -> None:
    base = write_run(tmp_path, "aaaa", WordyTask("t", {"acc": [1, 0]}))
    candidate = write_run(tmp_path, "bbbb", WordyTask("t", {"acc": [1, 1]}))
    found = packed(base, candidate)
    lists = unpacked(found.lists[0])
    by_id = dict(zip(lists["ids"], texts(found), strict=True))

    assert found.sets[0]["runs"] == [0, 1] and found.sets[0]["metrics"] == ["acc"] and found.samples == 2
    assert by_id[0][2][0] == by_id[0][2][1] == by_id[0][1] and isinstance(by_id[0][0], str)
    assert by_id[1][2][0] != by_id[1][2][1] == by_id[1][1]
    assert {key: (one, two) for key, one, two in zip(lists["ids"], *lists["values"][0], strict=True)} == {
        0: (1, 1),
        1: (0, 1),
    }


def test_samples_that_only_one_run_has_are_there(tmp_path: Path) -> None:
    base = write_run(tmp_path, "aaaa", replace(TASK, ids=range(6)))
    candidate = write_run(tmp_path, "bbbb", replace(TASK, ids=range(4, 10)))
    lists = unpacked(packed(base, candidate).lists[0])

    assert sorted(lists["ids"]) == list(range(10))
    assert dict(zip(lists["ids"], lists["values"][0][1], strict=True))[0] is None


def test_another_document_under_the_same_id_is_another_sample(tmp_path: Path) -> None:
    base = write_run(tmp_path, "aaaa", TASK)
    candidate = write_run(tmp_path, "bbbb", replace(TASK, document="another {id}"), replace(TASK, name="u"))
    found = packed(base, candidate)
    lists = unpacked(found.lists[0])

    assert lists["ids"] == [number for number in range(6) for _ in range(2)]
    assert all((one is None) != (two is None) for one, two in zip(*lists["values"][0], strict=True))
    assert found.notes == ["t: 6 samples listed apart: the runs have another document under the same id"]


def test_texts_beyond_the_budget_are_left_out_and_said_but_changed_samples_first(tmp_path: Path) -> None:
    values = [1] * 300
    base = write_run(tmp_path, "aaaa", WordyTask("big", {"acc": values}, seed=1), WordyTask("tiny", {"acc": [1]}))
    changed = [0 if place % 50 == 49 else 1 for place in range(300)]
    candidate = write_run(tmp_path, "bbbb", WordyTask("big", {"acc": changed}, seed=1), WordyTask("tiny", {"acc": [1]}))
    found = packed(base, candidate, budget=25_000)
    big, tiny = found.sets

    assert 0 < big["texts"] < big["n"] == 300 and tiny["texts"] == tiny["n"] == 1
    assert sorted(unpacked(found.lists[0])["ids"][:6]) == [49, 99, 149, 199, 249, 299]
    assert sum(map(len, (*found.lists, *found.chunks))) <= 25_000
    assert found.without_text == 300 - big["texts"]
    assert f"The texts of {found.without_text} of 301 samples were left out" in found.notes[0]


def test_the_file_is_no_larger_than_asked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa", WordyTask("t", {"acc": [1] * 900}))
    most = 190_000
    made = write([folder], tmp_path / "r.html", max_bytes=most)

    assert most - 40_000 < made.size <= most == made.path.stat().st_size + most - made.size
    assert "were left out to keep this file small" in made.path.read_text()


def test_a_long_text_loses_its_middle_and_says_how_much(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa", SpokenTask("t", {"acc": [1]}, texts=["a" * 50 + "b" * 50]))
    found = packed(folder, text_limit=40)

    assert texts(found)[0][0] == "a" * 12 + " […60 characters left out…] " + "b" * 28
    assert "longer than 40 characters lost their middle" in found.notes[0]


@pytest.mark.parametrize("cut", [10, -20])
def test_samples_that_are_cut_off_are_said_and_the_others_shown(tmp_path: Path, cut: int) -> None:
    folder = write_run(tmp_path, "aaaa", TASK, replace(TASK, name="u"))
    path = next((folder / "t" / "output").glob("samples_*"))
    path.write_bytes(path.read_bytes()[:cut])
    found = packed(folder)

    assert [one["key"] for one in found.sets] == ["u"] and found.samples == 6
    assert found.notes[0].startswith("aaaa, t: its samples cannot be read: ") and path.name in found.notes[0]


def test_runs_without_samples_say_why(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa", replace(TASK, logged=False), replace(TASK, name="u", logged=False))
    record = json.loads((folder / "results.json").read_text())
    record["tasks"][1]["harness"] = "nemo_evaluator"
    (folder / "results.json").write_text(json.dumps(record))

    assert packed(folder).notes == [
        "aaaa, t: it kept no samples",
        "aaaa, u: the harness nemo_evaluator keeps no samples that can be shown",
    ]


def test_more_samples_than_a_page_lists_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[pack.__module__], "MOST_ROWS", 4)
    found = packed(write_run(tmp_path, "aaaa", TASK))

    assert MOST_ROWS == 100_000 and found.samples == 4
    assert found.notes == ["t: 2 of 6 samples are not listed: a report lists 4"]


def test_a_sample_without_a_value_has_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa", PastTask("t", {"acc": [1, None, float("nan"), [1, 2]]}))

    assert unpacked(packed(folder).lists[0])["values"] == [[[1, None, None, None]]]
