"""Work that the training does not wait for, and that cannot stop it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Generic, TypeVar

from tqdm import tqdm

_Writer = TypeVar("_Writer")


class Background(Generic[_Writer]):
    """A writer on a thread of its own, with the jobs that it gets one after the other.

    The first that fails ends it with a line on standard error: what is shown of a training must not stop it.
    """

    def __init__(self, name: str, begin: Callable[[], AbstractContextManager[_Writer]]) -> None:
        """Start the thread.

        Args:
            name: of what is written, for the line.
            begin: makes the writer, on the thread.
        """
        self._name = name
        self._begin = begin
        self._jobs: SimpleQueue[Callable[[_Writer], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"mbdcnn {name}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[_Writer], None]) -> None:
        """Have a job done, soon."""
        if self._thread.is_alive():
            self._jobs.put(job)

    def close(self, seconds: float) -> None:
        """Let the jobs that wait be done, for so many seconds at most; the rest is left undone."""
        self._jobs.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._say("is too slow; its last entries are lost")

    def _work(self) -> None:
        try:
            with self._begin() as writer:
                while (job := self._jobs.get()) is not None:
                    job(writer)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            self._say(f"is not written any more ({reason.rstrip('.')}); the training goes on")

    def _say(self, what: str) -> None:
        tqdm.write(f"mbdcnn: {self._name} {what}.", file=sys.stderr)
