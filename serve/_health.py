"""Whether a server answers, told from whether it is only busy."""

from __future__ import annotations

import time
from collections.abc import Sequence

from serve._metrics import Metrics, executions, fetch
from serve._ports import LOOPBACK
from serve._process import ServerProcess
from serve.probe import ProbeError, ProbeTimeoutError, ask

_DEADLINE = 5.0
_AGAIN = 1.0  # seconds after which a refusal is asked about once more
_REFUSALS = 2


class Health:
    """Asks a server for tiny inferences, and counts its processes between them.

    Triton neither restarts a model's process that died nor reports it.

    Args:
        models: to ask in turn.
        metrics: told the time of each inference.
        interval: seconds between two tiny inferences.
        hung_after: seconds without an answer and without any model at work after which a server counts as hung.
    """

    def __init__(self, models: Sequence[str], metrics: Metrics, interval: float, hung_after: float) -> None:
        self._models = models
        self._metrics = metrics
        self._interval = interval
        self._hung_after = hung_after
        self.reset()

    def reset(self) -> None:
        """Begin anew with a server that has just answered."""
        self._answered = self._asked = time.monotonic()
        self._refusals = 0
        self._executed = 0.0
        self._turn = 0

    def ask_all(self, server: ServerProcess) -> None:
        """Ask every model once.

        Raises:
            ProbeError: one does not answer.
        """
        for model in self._models:
            ask(server.given.http_url, model, _DEADLINE)

    def trouble(self, server: ServerProcess) -> str | None:
        """Why the server must be replaced; None when it is well, or may only be slow."""
        return server.dead() or self._mute(server)

    def _mute(self, server: ServerProcess) -> str | None:
        start = time.monotonic()
        if start - self._asked < (_AGAIN if self._refusals else self._interval):
            return None
        self._asked = start
        try:
            ask(server.given.http_url, self._models[self._turn % len(self._models)], _DEADLINE)
        except ProbeTimeoutError:
            # a long queue looks the same, and a restart would lose what waits in it
            return "The server hangs" if self._stands_still(server) else None
        except ProbeError as error:
            self._refusals += 1
            return str(error).removesuffix(".") if self._refusals >= _REFUSALS else None
        self._turn += 1
        self._answered, self._refusals = time.monotonic(), 0
        self._metrics.probe_seconds.set(self._answered - start)
        return None

    def _stands_still(self, server: ServerProcess) -> bool:
        """Whether neither an answer came nor a model ran for long."""
        try:
            executed = executions(fetch(f"http://{LOOPBACK}:{server.given.ports.metrics}"))
        except ProbeError:
            executed = self._executed
        if executed != self._executed:
            self._executed, self._answered = executed, time.monotonic()
        return time.monotonic() - self._answered > self._hung_after
