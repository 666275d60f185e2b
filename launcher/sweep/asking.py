"""The sweeper of a plugin at work, in a thread of its own: it asks for points and waits for what they gave."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from hydra.core.utils import JobReturn

from launcher.config import sweepers
from launcher.config.sweepers import Choice
from launcher.sweep.study import Wanted, planned

Answer = tuple[float, ...] | Exception
"""Values of a point's objectives, or why it has none."""


class NoAnswer(BaseException):
    """The sweep has ended. Not an Exception, so that no sweeper takes it for a point that failed."""


class TrialFailed(Exception):
    """A point has no value of its objective."""


class Asking:
    """What a sweeper asks for. `next` and `answer` take turns, in one thread; the sweeper works in another.

    `error` is what ended the sweeper, if it did not end by itself.
    """

    def __init__(self, choice: Choice, *, scope: str, folder: str) -> None:
        self.error: BaseException | None = None
        self._choice = choice
        self._scope = scope
        self._folder = folder
        self._asked: SimpleQueue[list[Wanted] | None] = SimpleQueue()
        self._answers: SimpleQueue[Sequence[Answer] | None] = SimpleQueue()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def next(self) -> list[Wanted] | None:
        """The next batch, when the sweeper asks for one; None if it has ended."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="nv-eval-sweeper", daemon=True)
            self._thread.start()
        return self._asked.get()

    def answer(self, answers: Sequence[Answer]) -> None:
        """Tell the sweeper what the points of its last batch gave, in their order."""
        self._answers.put(answers)

    def end(self) -> None:
        """The sweeper gets no further answer, and whoever waits for it is released."""
        self._is_over.set()
        self._answers.put(None)
        self._asked.put(None)

    # --- the sweeper's side -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            composed = sweepers.composed(self._choice)
            sweeper = composed.make(self._folder, self._launch)
            sweepers.quieten()
            sweeper.sweep(composed.arguments())
        except NoAnswer:
            pass
        except BaseException as error:  # a plugin's own code: whoever waits for it is told
            self.error = error
        finally:
            self._asked.put(None)

    def _launch(self, batch: Sequence[Sequence[str]]) -> list[JobReturn]:
        if self._is_over.is_set():
            raise NoAnswer
        try:
            wanted = planned(self._choice, batch, self._scope)
        except Exception as error:
            self.error = error
            raise NoAnswer from None
        self._asked.put(wanted)
        answers = self._answers.get()
        if answers is None:
            raise NoAnswer
        return [sweepers.returned(texts, _told(one)) for texts, one in zip(batch, answers, strict=True)]


def _told(answer: Answer) -> float | list[float] | Exception:
    """An answer as Hydra's sweepers expect it: a number, or as many as there are objectives."""
    if isinstance(answer, Exception):
        return answer
    return answer[0] if len(answer) == 1 else list(answer)
