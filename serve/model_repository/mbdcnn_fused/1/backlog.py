"""How many requests wait in a server's queues; copied by the export beside the models that let requests in.

Triton bounds the queue of a single model, and pays for it: a model whose queue has a bound or a time limit is handed
no request before an instance waits for it, and each one that arrives in between is left alone for up to half a second
(triton-inference-server/server#8870, release 24.10). So only the queue in front has a bound of Triton's; behind it,
nothing is let in while the networks have enough to do.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from http.client import HTTPConnection, HTTPException

METRICS_PORT = "MBDCNN_METRICS_PORT"  # of tritonserver's metrics on this machine; without it nothing is known
_WAITING = re.compile(r'^nv_inference_pending_request_count\{model="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
_TIMEOUT = 2.0  # seconds
_PAUSE = 0.05
_AT_ONCE = 8  # requests that are let in between two looks
_LONGEST = 5.0  # seconds that the gate stays shut, whatever the metrics say


def waiting(models: Collection[str]) -> int:
    """Requests in some models' queues, by the server's own metrics; 0 where it tells none."""
    port = os.environ.get(METRICS_PORT)
    if not port:
        return 0
    connection = HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()
    return round(sum(float(count) for model, count in _WAITING.findall(text) if model in models))


class Gate:
    """Lets requests in while few wait behind it.

    The metrics are not asked for each of them: a look costs a millisecond or two.

    Args:
        models: behind the gate.
        most: requests that may wait there.
    """

    def __init__(self, models: Collection[str], most: int) -> None:
        self._models = models
        self._most = most
        self._room = 0

    def wait(self) -> None:
        """Return when there is room for one more."""
        end = time.monotonic() + _LONGEST
        while not self.is_open() and time.monotonic() < end:
            time.sleep(_PAUSE)

    def is_open(self) -> bool:
        """Whether there is room for one more, which then is taken."""
        if self._room <= 0:
            self._room = min(_AT_ONCE, self._most - waiting(self._models))
        self._room -= 1
        return self._room >= 0
