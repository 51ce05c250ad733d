"""When to ask again, and after which pause."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbdcnn.errors import UserError
from serve.client._errors import is_unprocessed

if TYPE_CHECKING:
    from tritonclient.utils import InferenceServerException

Explain = Callable[[str, str], UserError]


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a request is sent that the server has not begun to work on.

    Attributes:
        attempts: in all; 1 never asks again.
        first_pause: seconds before the second attempt; it doubles from one to the next.
        longest_pause: seconds. Each pause is drawn from the upper half of its length, so that clients which a restart
            threw out together do not come back together.
    """

    attempts: int = 4
    first_pause: float = 0.1
    longest_pause: float = 2.0

    def pause(self, failed: int) -> float:
        """Seconds to wait after that many failed attempts."""
        return min(self.longest_pause, self.first_pause * 2 ** (failed - 1)) * random.uniform(0.5, 1.0)


class Attempts:
    """The attempts of one request, within one deadline.

    Args:
        retry: how often to ask.
        deadline: seconds for all attempts and the pauses between them.
        explain: makes the user's sentence of a gRPC status and message.
    """

    def __init__(self, retry: Retry, deadline: float, explain: Explain) -> None:
        self._retry = retry
        self._end = time.monotonic() + deadline
        self._explain = explain
        self._failed = 0

    def limits(self) -> dict[str, float]:
        """Arguments for tritonclient: what is left of the deadline, for gRPC (s) and for the server's queues (us)."""
        left = max(1e-3, self._end - time.monotonic())  # when it is over, gRPC says so itself
        return {"client_timeout": left, "timeout": int(1e6 * left)}

    def pause_after(self, error: InferenceServerException) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            UserError: there is no next attempt.
        """
        status = str(error.status() or "").removeprefix("StatusCode.")
        message = str(error.message() or "").strip()
        self._failed += 1
        if self._failed < self._retry.attempts and is_unprocessed(status, message):
            pause = self._retry.pause(self._failed)
            if time.monotonic() + pause < self._end:
                return pause
        raise self._explain(status, message) from None
