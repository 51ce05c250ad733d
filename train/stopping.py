"""Being asked to stop, by SIGTERM or Ctrl-C: a training first ends its step and writes a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mbdcnn.errors import Stopped

Handler = Callable[[int, "FrameType | None"], Any]
_asked: int | None = None  # the signal; signals belong to the process, and so does this


def requested() -> bool:
    """Whether this process was asked to stop while it could not do so at once."""
    return _asked is not None


def stopped(where: str) -> Stopped:
    """What to raise when all processes have agreed to stop.

    Args:
        where: the training will go on, as the end of a sentence.
    """
    return Stopped(f"stopped; the same command goes on {where}.", _asked or signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[None]:
    """Let both signals be noted only (see `requested`), and a second Ctrl-C stop at once."""

    def note(number: int, frame: FrameType | None) -> None:
        global _asked
        if _asked == number == signal.SIGINT and "RANK" not in os.environ:  # a launcher passes on what all have heard
            raise KeyboardInterrupt
        _asked = number

    # of a process that another one started, the other hears Ctrl-C in its place
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with handling(note, signal.SIGTERM, *([signal.SIGINT] if interrupts else [])):
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """Begin work that nobody has asked to stop; let SIGTERM stop it as Ctrl-C does, where it is whole at any moment."""
    global _asked
    _asked = None

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped("stopped; the same command goes on after the last whole checkpoint.", number)

    with handling(stop, signal.SIGTERM):
        yield


@contextmanager
def handling(handler: Handler, *numbers: int) -> Iterator[None]:
    """Handle signals in a block; outside the main thread, which alone may, leave them as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
