"""Prices: from a config group of the person's own to what a run says that it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import load_config
from launcher.cli.live import Lines
from launcher.errors import ConfigError
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import TaskState
from launcher.platforms.base import Progress
from tests.unit.test_lepton_plan import plan


def running(replicas: int = 1) -> tuple[Lines, TaskState]:
    made = plan({"endpoint": {"min_replicas": replicas}}, prices={"gpu.1xh100": 6.0})
    state = TaskState(plan=made.tasks[0], admitted=True, started_at=0.0, job_submitted=True)
    state.progress = Progress(phase="evaluating", done=3, total=10)
    return Lines(made), state


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_cost_so_far_is_told_while_it_runs(replicas: int, capsys: pytest.CaptureFixture[str]) -> None:
    view, state = running(replicas)

    view.update([state], 1800.0)

    assert f"arc_easy: evaluating 3/10, {3 * replicas}.00 USD so far\n" in capsys.readouterr().err


def test_the_cost_stops_when_the_endpoint_is_gone() -> None:
    _, state = running()
    state.reason, state.gone_at, state.done = Reason.COMPLETED, 3600.0, True

    assert state.usd(9999.0, None) == pytest.approx(6.0)


def test_nothing_is_said_of_money_without_a_price(capsys: pytest.CaptureFixture[str]) -> None:
    made = plan()
    Lines(made).update([TaskState(plan=made.tasks[0], admitted=True, started_at=0.0)], 1800.0)

    assert "USD" not in capsys.readouterr().err


def test_there_are_no_prices_unless_a_person_chooses_some(tmp_path: Path) -> None:
    mine = tmp_path / "pricing" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("usd_per_hour: {gpu.a10: 2}\n")

    assert load_config().pricing.usd_per_hour == {}
    assert load_config(overrides=["pricing=example"]).pricing.of("gpu.1xh100") == 1.0
    assert load_config(overrides=["pricing=mine"], config_dir=str(tmp_path)).pricing.of("GPU.A10") == 2.0
    assert load_config(overrides=["pricing.usd_per_hour={gpu.a10: 3}"]).pricing.of("gpu.a10") == 3.0


@pytest.mark.parametrize(("value", "shown"), [("2", "2"), ("0.5", "0.5"), ("${x}", "PRICE")])
def test_a_price_that_is_no_override_is_told_how_to_write_it(value: str, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[f"pricing.usd_per_hour.gpu.1xh100={value}"])

    (line,) = caught.value.problems
    assert line.endswith(f"; names of shapes go in braces: 'pricing.usd_per_hour={{gpu.1xh100: {shown}}}'")


def test_the_price_that_the_hint_writes_is_taken() -> None:
    assert load_config(overrides=["pricing.usd_per_hour={gpu.1xh100: 2}"]).pricing.of("gpu.1xh100") == 2.0


@pytest.mark.parametrize("price", ["-1", "free"])
def test_a_price_is_a_number_that_is_not_negative(price: str) -> None:
    with pytest.raises(ConfigError, match=r"pricing\.usd_per_hour.*expected a number of at least 0"):
        load_config(overrides=[f"pricing.usd_per_hour={{gpu.a10: {price}}}"])
