"""The gate: each verdict with its reason, planted regressions of known size, and what CI reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from junitparser import Error, Failure, JUnitXml

from launcher.errors import ConfigError, NotComparable
from launcher.results import gate_text
from launcher.results.gate import Decision, Verdict, gate
from launcher.results.policy import Policy, Rule, load
from launcher.results.statistics import Shares
from tests.unit.past_runs import PastTask, write_run

N = 200
RIGHT = [1] * 140 + [0] * 60
TASK = PastTask("t", {"acc": RIGHT})


def moved(fell: int, rose: int = 0) -> list[int]:
    """Answers of which so many became wrong, and right."""
    return [0] * fell + [1] * (140 - fell + rose) + [0] * (60 - rose)


def decided(root: Path, policy: dict[str, Any], *candidate: PastTask, force: bool = False, **baseline: Any) -> Decision:
    path = root / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    first = write_run(root, "aaaa", *baseline.get("tasks", [TASK]))
    return gate(first, write_run(root, "bbbb", *candidate), load(path), force=force)


def new(fell: int, rose: int = 0) -> PastTask:
    return replace(TASK, values={"acc": moved(fell, rose)})


MAX_DROP = {"rules": [{"task": "t", "metric": "acc", "max_drop": 0.02}]}
MARGIN = {"rules": [{"task": "t", "margin": 0.05}]}


@pytest.mark.parametrize(
    ("policy", "fell", "rose", "verdict", "reason"),
    [
        (MAX_DROP, 0, 0, Verdict.GO, "no change"),
        (MAX_DROP, 4, 0, Verdict.GO, "worse by 0.0200"),
        (MAX_DROP, 10, 2, Verdict.INCONCLUSIVE, "worse by 0.0400"),
        (MAX_DROP, 30, 2, Verdict.NO_GO, "worse by 0.1400"),
        (MARGIN, 0, 0, Verdict.GO, "surely no drop of 0.05"),
        (MARGIN, 10, 10, Verdict.GO, "no change"),
        (MARGIN, 14, 14, Verdict.INCONCLUSIVE, "neither sure nor ruled out"),
        (MARGIN, 40, 5, Verdict.NO_GO, "surely a drop of more than 0.05"),
        ({"default": {"min_value": 0.7}}, 0, 0, Verdict.GO, "0.7000 is not below 0.7"),
        ({"default": {"min_value": 0.7}}, 1, 0, Verdict.NO_GO, "0.6950 is below 0.7"),
        ({"default": {"max_value": 0.6}}, 0, 0, Verdict.NO_GO, "0.7000 is above 0.6"),
        ({"default": {"max_drop": 0, "min_samples": 201}}, 0, 0, Verdict.INCONCLUSIVE, "200 pairs of samples, fewer"),
    ],
)
def test_every_limit_has_its_verdict_and_reason(
    tmp_path: Path, policy: dict[str, Any], fell: int, rose: int, verdict: Verdict, reason: str
) -> None:
    found = decided(tmp_path, policy, new(fell, rose))

    assert (found.verdict, found.exit_code) == (verdict, {"GO": 0, "NO-GO": 12, "INCONCLUSIVE": 13}[verdict])
    assert reason in found.checks[0].reason


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.8), (0.35, 0.2), (2.0, 0.99)])
def test_a_planted_regression_is_found_as_often_as_its_size_says(tmp_path: Path, share: float, expected: float) -> None:
    """At the detectable size in about 80 % of runs, well below it seldom, well above it always; else INCONCLUSIVE."""
    detectable = Shares(N, 10, 10).detectable(0.05)
    assert detectable is not None
    size = share * detectable
    differing = max(0.1, size)
    odds = [(differing - size) / 2, (differing + size) / 2, 1 - differing]
    draws, counts = np.unique(np.random.default_rng(4).multinomial(N, odds, size=40), axis=0, return_counts=True)
    verdicts: Counter[Verdict] = Counter()
    policy, baseline = Policy(rules=[Rule(task="t", max_drop=0)]), write_run(tmp_path, "aaaa", TASK)

    for place, (rose, fell, _) in enumerate(draws):
        candidate = write_run(tmp_path, f"run{place}", new(int(fell), int(rose)))
        verdicts[gate(baseline, candidate, policy).verdict] += counts[place]

    found = verdicts[Verdict.NO_GO] / verdicts.total()
    assert found == pytest.approx(expected, abs=0.13) if share <= 1 else found >= expected
    assert verdicts[Verdict.GO] / verdicts.total() < (0.05 if share >= 1 else 0.3)


def test_alpha_is_shared_by_all_checks_before_one_of_them_is_a_no_go(tmp_path: Path) -> None:
    others = [PastTask(f"o{place}", {"acc": RIGHT}) for place in range(30)]
    one = decided(tmp_path, {"default": {"max_drop": 0}}, new(9, 1))

    (tmp_path / "many").mkdir()
    many = decided(tmp_path / "many", {"default": {"max_drop": 0}}, new(9, 1), *others, tasks=[TASK, *others])

    assert one.verdict is Verdict.NO_GO
    assert many.verdict is Verdict.INCONCLUSIVE and "alpha shared by 31 checks" in many.checks[0].reason


def test_lower_is_better_turns_a_rise_into_a_drop(tmp_path: Path) -> None:
    task = replace(TASK, score={"higher_is_better": False})

    found = decided(tmp_path, MAX_DROP, replace(task, values={"acc": moved(0, 30)}), tasks=[task])

    assert found.verdict is Verdict.NO_GO and found.checks[0].change == pytest.approx(-0.15)


def test_an_unknown_direction_is_inconclusive_until_the_rule_says_it(tmp_path: Path) -> None:
    task = replace(TASK, score={"higher_is_better": None})
    unsaid = decided(tmp_path, MAX_DROP, task, tasks=[task])
    (tmp_path / "said").mkdir()
    rule = {"task": "t", "max_drop": 0.02, "higher_is_better": True}

    said = decided(tmp_path / "said", {"rules": [rule]}, task, tasks=[task])

    assert unsaid.verdict is Verdict.INCONCLUSIVE and "set higher_is_better" in unsaid.checks[0].reason
    assert said.verdict is Verdict.GO


def test_the_first_rule_that_fits_counts_and_one_without_limits_exempts(tmp_path: Path) -> None:
    rules = [{"task": "t", "metric": "acc"}, {"task": "*", "max_drop": 0}]
    other = PastTask("other", {"acc": RIGHT})

    found = decided(tmp_path, {"rules": rules}, new(30), other, tasks=[TASK, other])

    assert [(check.rule, check.subject) for check in found.checks] == [("rules[1]", "other acc")]
    assert found.verdict is Verdict.GO and found.unchecked == ["t acc"]


def test_a_required_task_without_scores_is_a_no_go(tmp_path: Path) -> None:
    policy = {"require": ["t", "gone*", "typo"], "default": {"max_drop": 0.1}}
    gone = PastTask("gone", {"acc": RIGHT})

    found = decided(tmp_path, policy, TASK, PastTask("gone", {}), tasks=[TASK, gone])

    assert [check.verdict for check in found.checks[:3]] == [Verdict.GO, Verdict.NO_GO, Verdict.NO_GO]
    assert found.checks[1].reason == "without scores in the candidate: gone (harness failed)"
    assert found.checks[2].reason.startswith("no such task in either run")
    assert found.verdict is Verdict.NO_GO


def test_a_score_that_went_missing_and_a_rule_that_fits_nothing_are_no_go_for_nobody(tmp_path: Path) -> None:
    policy = {"rules": [{"task": "gsm9k", "max_drop": 0}], "default": {"max_drop": 0.1}}
    lost = PastTask("gsm8k", {"acc": RIGHT})

    found = decided(tmp_path, policy, TASK, tasks=[TASK, lost])

    reasons = {check.subject: check.reason for check in found.checks if check.verdict is Verdict.INCONCLUSIVE}
    assert reasons["gsm8k acc"] == "no such score in the candidate: gsm8k (not run)"
    assert "did you mean gsm8k" in reasons["gsm9k * *"]
    assert found.verdict is Verdict.INCONCLUSIVE


def test_an_undefined_score_is_inconclusive(tmp_path: Path) -> None:
    undefined = replace(TASK, score={"value": None, "stderr": None})

    found = decided(tmp_path, {"default": {"max_drop": 1, "min_value": 0}}, undefined)

    assert [check.verdict for check in found.checks] == [Verdict.INCONCLUSIVE] * 2
    assert "no value in bbbb" in found.checks[0].reason and found.checks[0].candidate_value is None


def test_without_any_error_a_margin_is_not_proven(tmp_path: Path) -> None:
    bare = replace(TASK, logged=False, score={"stderr": None})

    found = decided(tmp_path, MARGIN, bare, tasks=[bare])

    assert found.verdict is Verdict.INCONCLUSIVE and "too few samples, or no standard error" in found.checks[0].reason


def test_what_cannot_be_compared_is_no_verdict_unless_forced(tmp_path: Path) -> None:
    other = replace(TASK, prompt="Please: {id}")
    with pytest.raises(NotComparable):
        decided(tmp_path, MAX_DROP, other)

    forced = gate(tmp_path / "aaaa", tmp_path / "bbbb", load(tmp_path / "policy.yaml"), force=True)

    assert forced.verdict is Verdict.GO and forced.checks[0].notes[0].startswith("forced: prompts (200 of 200")


def test_junit_and_markdown_tell_ci_every_check(tmp_path: Path) -> None:
    policy = {"require": ["<b>|&"], "rules": [{"task": "t", "max_drop": 0.02}], "default": {"max_drop": 0.0}}
    other = PastTask("u", {"acc": RIGHT})
    found = decided(tmp_path, policy, new(10, 2), other, tasks=[TASK, other])

    cases = [case for suite in JUnitXml.fromstring(gate_text.junit(found)) for case in suite]

    assert [[type(result) for result in case.result] for case in cases] == [[Failure], [Error], []]
    assert "NO-GO: no such task" in cases[0].result[0].message and cases[0].name == "<b>|& require"
    text = gate_text.markdown(found)
    assert text.startswith("## NO-GO: bbbb") and "&#60;b&#62;&#124;&#38;" in text and text.count("\n| ") == 4


def test_junit_is_xml_whatever_the_names_hold(tmp_path: Path) -> None:
    evil = replace(TASK, name="t\x1b[31m\x00\ud800\ufffe", key="t")
    found = decided(tmp_path, {"default": {"max_drop": 0.0}}, new(0))
    check = replace(found.checks[0], subject=evil.name, reason="a\x08b", notes=["c\x0bd"])

    text = gate_text.junit(replace(found, checks=[check]))

    (case,) = (case for suite in JUnitXml.fromstring(text) for case in suite)
    assert (case.name, case.system_out) == ("t[31m max_drop", "ab\ncd")


WRONG = [
    ("rules:\n- task: t\n  max_dropp: 0.1\n", "policy.yaml:3: rules[0].max_dropp: unknown key; did you mean max_drop?"),
    ("rule: []\n", "policy.yaml:1: rule: unknown key; did you mean rules?"),
    ("default:\n  max_drop: -1\n", "policy.yaml:2: default.max_drop: expected a number of at least 0, got -1"),
    ("alpha: 0.7\ndefault: {max_drop: 0}\n", "policy.yaml:1: alpha: expected a number above 0 and below 0.5, got 0.7"),
    ("default: {min_value: .nan}\n", "policy.yaml:1: default.min_value: expected a finite number, got nan"),
    ("require: t\n", "policy.yaml:1: require: expected a list, got 't'"),
    ("- 1\n", "policy.yaml: expected a mapping, got a list"),
    ("alpha: 0.05\n", "policy.yaml: asks for nothing; give it rules, default or require"),
    ("a: [1\n", "policy.yaml:2: not valid YAML"),
    ("\x00", "policy.yaml: cannot be read"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said[12:34] for _, said in WRONG])
def test_a_wrong_policy_is_told_with_line_and_nearest_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        load(Path("policy.yaml"))

    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_missing_policy_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
