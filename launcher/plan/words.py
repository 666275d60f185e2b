"""Numbers in words, the same in every table and message."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time span as people say it: 45 s, 12 min, 3 h 20 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h" if rest == 0 else f"{hours} h {rest} min"


def money(usd: float) -> str:
    """An amount in USD."""
    return f"{usd:.2f} USD"


def amount(number: float) -> str:
    """A number of USD or hours: two places, and more where it would seem to be nothing."""
    return f"{number:.2f}" if number == 0 or abs(number) >= 0.1 else f"{number:.2g}"


def beyond_limit(key: str, used: float, most: float, unit: str) -> str:
    """What is said where the worst case of a plan breaks a limit."""
    return (
        f"{key}: the worst case is {amount(used)} {unit}, the limit {amount(most)}; lower the time-outs, raise the "
        "limit, or add --yes to be ended when it is reached"
    )


def counted(count: int, word: str) -> str:
    """A number of things: 1 job, 2 jobs."""
    return f"{count} {word if count == 1 else f'{word}s'}"
