"""What is counted of requests to a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from launcher.emulators.deepinfra.wire import Json


@dataclass(frozen=True, kw_only=True)
class Served:
    """One request. `time` of its end, since 1970; `seconds` it took, `first` of them until the first token."""

    time: float
    seconds: float
    first: float
    input_tokens: int
    output_tokens: int
    is_error: bool


@dataclass
class Statistics:
    """All requests to one deployment."""

    served: list[Served] = field(default_factory=list)

    def requests(self, start: float, end: float) -> int:
        """Their number in a period."""
        return len(self._within(start, end))

    def summary(self, start: float, end: float, usd: float) -> Json:
        """What `/deploy/{id}/stats` shows of a period that cost so much."""
        served = self._within(start, end)
        times = [one.seconds * 1000 for one in served]
        tokens = self._tokens(served)
        return {
            "requests": len(served),
            "total_time": round(sum(one.seconds for one in served)),
            "total_tokens": tokens["input_tokens"] + tokens["output_tokens"],
            **tokens,
            "total_amount": round(usd * 100),
            "avg_time": _average(times),
            "avg95_time": _percentile(times),
            "errors": sum(one.is_error for one in served),
        }

    def details(self, start: float, end: float, usd: float) -> Json:
        """What `/deploy/{id}/stats2` shows of a language model."""
        served = self._within(start, end)
        firsts = [one.first * 1000 for one in served]
        per_token = [(one.seconds - one.first) * 1000 / max(1, one.output_tokens) for one in served]
        return {
            "requests": len(served),
            **self._tokens(served),
            "avg_ttft_ms": _average(firsts),
            "avg95_ttft_ms": _percentile(firsts),
            "avg_tpt_ms": _average(per_token),
            "avg95_tpt_ms": _percentile(per_token),
            "total_amount_cents": round(usd * 100),
            "errors": sum(one.is_error for one in served),
        }

    def _within(self, start: float, end: float) -> list[Served]:
        return [one for one in self.served if start <= one.time <= end]

    def _tokens(self, served: Sequence[Served]) -> dict[str, int]:
        return {
            "input_tokens": sum(one.input_tokens for one in served),
            "output_tokens": sum(one.output_tokens for one in served),
        }


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _percentile(values: Sequence[float]) -> float:
    """The 95th."""
    return sorted(values)[math.ceil(len(values) * 0.95) - 1] if values else 0.0
