"""A gate's decision for people and for CI: Markdown and JUnit XML."""

from __future__ import annotations

import re

from launcher.results.compare_text import remark_list, safe, table, title
from launcher.results.gate import Check, Decision, Verdict

HEADS = ("verdict", "score", "check", "base", "new", "reason")
LEFT = ("verdict", "score", "check", "reason")
_NO_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""


def cells(check: Check) -> list[str]:
    """One check under HEADS."""
    limit = "" if check.limit is None else f" {check.limit:g}"
    values = ("-" if value is None else f"{value:.4f}" for value in (check.baseline_value, check.candidate_value))
    return [check.verdict.value, check.subject, f"{check.kind}{limit}", *values, check.reason]


def remarks(decision: Decision) -> list[str]:
    """What a reader must know beside the checks, one line each."""
    notes = [f"{check.subject}: {note}" for check in decision.checks for note in check.notes]
    unchecked = [f"not checked: {', '.join(decision.unchecked)}"] if decision.unchecked else []
    return [*dict.fromkeys(notes), *unchecked]


def markdown(decision: Decision) -> str:
    """The decision in Markdown, for a summary of CI."""
    lines = [
        f"## {decision.verdict.value}: {safe(title(decision.candidate))} against {safe(title(decision.baseline))}",
        "",
    ]
    lines += [*table(HEADS, map(cells, decision.checks), LEFT), "", *remark_list(remarks(decision))]
    return "\n".join(lines).rstrip() + "\n"


def junit(decision: Decision) -> bytes:
    """The decision in JUnit's XML: NO-GO is a failure, INCONCLUSIVE an error, so that neither passes unseen."""
    from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

    suite = TestSuite(_xml(f"nv-eval gate {decision.baseline.invocation} {decision.candidate.invocation}"))
    for check in decision.checks:
        case = TestCase(_xml(f"{check.subject} {check.kind}"), classname=f"nv-eval.gate.{check.rule}", time=0.0)
        if check.verdict is not Verdict.GO:
            kind = Failure if check.verdict is Verdict.NO_GO else Error
            case.result = [kind(_xml(f"{check.verdict.value}: {check.reason}"), check.verdict.value)]
        case.system_out = _xml("\n".join([check.reason, *check.notes]))
        suite.add_testcase(case)
    document = JUnitXml("nv-eval gate")
    document.add_testsuite(suite)
    xml: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return xml


def _xml(text: str) -> str:
    """Text of others without what would make the file no XML."""
    return _NO_XML.sub("", text)
