"""Being asked to stop: the search ends its round in order, and what is finished is written up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from train.stopping import handling

_asked: int | None = None  # the signal; signals belong to the process, and so does this


def asked() -> int | None:
    """The signal by which this process was asked to stop, None without."""
    return _asked


def tell_ray() -> None:
    """Let Ray end the round that it runs, in order."""
    if callable(signal.getsignal(signal.SIGUSR1)):  # Ray's own, set with the first round
        signal.raise_signal(signal.SIGUSR1)


@contextmanager
def interruptible() -> Iterator[None]:
    """Hear Ctrl-C and SIGTERM in a block; a second Ctrl-C ends it at once."""
    global _asked
    _asked = None

    def hear(number: int, frame: FrameType | None) -> None:
        global _asked
        if _asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        _asked = number
        tell_ray()

    with handling(hear, signal.SIGINT, signal.SIGTERM):
        yield
