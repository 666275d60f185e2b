"""One container of ours: its log on the way into a file, how it ended, its removal."""

from __future__ import annotations

import contextlib
import math
import threading
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

from launcher.platforms.local.docker.engine import ENGINE_ERRORS, explain, remove
from launcher.platforms.local.unit import Ending
from launcher.platforms.secrets import Redactor

LAST_LINES = 5.0
"""Seconds that the last output of a stopped container has to arrive before the container is removed."""


class Container:
    """A started container. Its state is what `take` was last told."""

    def __init__(
        self, client: docker.DockerClient, id_: str, log: Path, *, secrets: list[str], grace: float, workers: Executor
    ) -> None:
        self.id = id_
        self._client = client
        self._grace = grace
        self._workers = workers
        self._ending: Ending | None = None
        self._removed = False
        self._removal: Future[None] | None = None
        self._pump = threading.Thread(target=self._copy_log, args=(log, secrets), daemon=True)
        self._pump.start()

    def look(self) -> Ending | None:
        """How its command ended, once its log is complete; None before."""
        return self._ending if self.is_silent or self._removed else None

    @property
    def is_silent(self) -> bool:
        """Whether its log is complete."""
        return not self._pump.is_alive()

    @property
    def is_over(self) -> bool:
        """Whether the engine has confirmed that it does not exist any more."""
        return self._removed

    def take(self, seen: dict[str, Any] | None) -> None:
        """Take note of what the engine lists of this container; None: nothing. Asks for the details of an end once."""
        if seen is None:
            self._ending = self._ending or Ending(exit_code=None, detail="its container was removed by somebody else")
            self._removed = True
        elif seen["State"] in ("exited", "dead") and self._ending is None:
            with contextlib.suppress(NotFound):
                self._ending = _ending(self._client.api.inspect_container(self.id)["State"])

    def stop(self) -> None:
        """Ask for a polite end and the removal, in the background; asking again after a failure tries again."""
        if self._removal is None or (self._removal.done() and self._removal.exception() is not None):
            self._removal = self._workers.submit(self._stop_and_remove)

    def kill(self) -> None:
        """Ask for the removal at once, in the background."""
        self._workers.submit(remove, self._client, self.id)

    def close(self) -> None:
        """Wait for the last output."""
        self._pump.join(LAST_LINES)

    def _stop_and_remove(self) -> None:
        with contextlib.suppress(NotFound):
            self._client.api.stop(self.id, timeout=math.ceil(self._grace))
        self._pump.join(LAST_LINES)
        remove(self._client, self.id)

    def _copy_log(self, log: Path, secrets: list[str]) -> None:
        redactor = Redactor(secret.encode() for secret in secrets)
        with log.open("ab", buffering=0) as file:
            try:
                for chunk in self._client.api.logs(self.id, stream=True, follow=True):
                    file.write(redactor.feed(chunk))
            except NotFound:
                pass  # removed before the stream began
            except ENGINE_ERRORS as error:
                file.write(f"\n(the engine stopped sending this log: {explain(error)})\n".encode())
            file.write(redactor.flush())


def _ending(state: dict[str, Any]) -> Ending:
    code = int(state["ExitCode"])
    if state.get("OOMKilled"):
        return Ending(exit_code=code, detail="killed for using more memory than deployment.memory_gib")
    return Ending(exit_code=code, detail=state.get("Error") or f"exited with code {code}")
