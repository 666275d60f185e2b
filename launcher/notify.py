"""Tell people how a run goes, through Apprise: mail, chat, phone, or any web hook.

It never holds up a run and never fails it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from launcher.config.schema import Notify
from launcher.errors import MissingExtra, PreflightError
from launcher.orchestrator.reasons import Status

if TYPE_CHECKING:
    from apprise import Apprise

    from launcher.orchestrator.state import RunOutcome

PATIENCE = 15.0
"""Seconds that the last messages may take to be sent when the run is over."""


class Notifier:
    """Sends messages of the events that a config names."""

    def __init__(self, config: Notify, invocation: str, environment: Mapping[str, str] | None = None) -> None:
        """Read the addresses. Raises PreflightError if one is missing or wrong, MissingExtra without Apprise."""
        self._events = frozenset(config.events) if config.url_names else frozenset[str]()
        self._invocation = invocation
        self._failed = False
        self._sending: list[threading.Thread] = []
        if self._events:
            self._addresses = _addresses(config.url_names, os.environ if environment is None else environment)

    def tell(self, event: str, text: str) -> None:
        """Send a message in the background, if the config wants this event."""
        if event not in self._events:
            return
        thread = threading.Thread(target=self._send, args=(text,), daemon=True, name="nv-eval-notify")
        self._sending.append(thread)
        thread.start()

    def conclude(self, outcome: RunOutcome, folder: str) -> str | None:
        """Tell how the run ended, and wait as `wait` does."""
        scored = sum(task.status is Status.SCORED for task in outcome.tasks)
        text = f"{scored} of {len(outcome.tasks)} tasks scored. Results: {folder}"
        self.tell("finished" if outcome.exit_code == 0 else "failed", text)
        if outcome.leftovers:
            command = f"nv-eval cleanup {outcome.invocation}"
            self.tell("leftover", f"May still be running: {', '.join(outcome.leftovers)}. Remove it: {command}")
        return self.wait()

    def wait(self) -> str | None:
        """Wait until all is sent; returns a line if something could not be sent."""
        for thread in self._sending:
            thread.join(PATIENCE)
        failed = self._failed or any(thread.is_alive() for thread in self._sending)
        return "A notification could not be sent; check the addresses of notify.url_names." if failed else None

    def _send(self, text: str) -> None:
        sent = self._addresses.notify(title=f"nv-eval {self._invocation}", body=text)
        self._failed = self._failed or not sent


def _addresses(names: Sequence[str], environment: Mapping[str, str], key: str = "notify.url_names") -> Apprise:
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise MissingExtra("apprise, which notify needs,", "notify") from error
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its lines hold addresses, which hold passwords
    made, problems = apprise.Apprise(), list[str]()
    for name in names:
        if name not in environment:
            problems.append(f"{key}: variable {name} is not set; export {name}=... before the run")
        elif not made.add(environment[name]):
            problems.append(f"{key}: {name} holds no address that Apprise knows; for example mailto://...")
    if problems:
        raise PreflightError(problems)
    return made


def send(names: Sequence[str], title: str, text: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send one message to the addresses that variables hold, and wait for it; whether it was sent.

    Raises as `Notifier` does.
    """
    addresses = _addresses(names, os.environ if environment is None else environment, "--notify")
    return bool(addresses.notify(title=title, body=text))


def refuse_unknown(names: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raises as `Notifier` does for addresses that nothing can be sent to."""
    _addresses(names, environment, "--notify")
