"""The loop that starts a server, replaces it when it no longer answers, and brings it to new versions."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mbdcnn.errors import UserError
from serve._health import Health
from serve._live import ChangingError, LiveRepository, Staged, Watch, signature, stage
from serve._log import LOG
from serve._metrics import Metrics, MetricsEndpoint, fetch
from serve._ports import LOOPBACK, Ports, choose_ports
from serve._process import ServerProcess
from serve._triton import Arguments, Installation
from serve._upgrade import InterruptedUpgradeError, move, until
from serve.probe import ProbeError
from serve.verify import verify

_TICK = 1.0
_LONGEST_PAUSE = 30.0
_STEADY = 60.0  # seconds that a server must live for its next end to count as the first
_MOST_FAILURES = 5
_BRIEFLY = 2.0  # seconds that a server has which is still starting; it does not listen to signals
_REST = 10.0  # seconds in which a server without requests unloads its models and ends


@dataclass(frozen=True)
class Settings:
    """How the server is watched; see `serve.server.TritonServer`."""

    watch: float | None
    drain: float
    start_timeout: float
    probe_interval: float
    hung_after: float


class Supervisor:
    """Runs in one thread: a server ends when the thread that started it does.

    Args:
        triton: what to run.
        given: with what; the metrics' port is the public one.
        models: that must answer.
        settings: how to watch it.
        folder: for what is only needed while it runs; exists.
        sink: told each line of the server's log.
        stop: set from outside to end it.

    Attributes:
        metrics: what it counts.
        restarts: servers that were replaced.
        upgrades: new versions that were taken.
        server: the present one.
    """

    def __init__(
        self,
        triton: Installation,
        given: Arguments,
        models: tuple[str, ...],
        settings: Settings,
        folder: Path,
        sink: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self.metrics = Metrics()
        self.restarts = 0
        self.upgrades = 0
        self.server: ServerProcess | None = None
        self._triton = triton
        self._given = given
        self._settings = settings
        self._folder = folder
        self._backends = folder / "backends"
        self._sink = sink
        self._stop = stop
        self._health = Health(models, self.metrics, settings.probe_interval, settings.hung_after)
        self._live: LiveRepository | None = None
        self._n_staged = 0
        self._crashes = 0
        self._answering_since: float | None = None

    def run(self, ready: Callable[[], None]) -> None:
        """Supervise until `stop` is set.

        Args:
            ready: called once, when the first server has answered.

        Raises:
            UserError: the first server did not start, or a later one failed too often.
        """
        given, repository = self._given, self._given.repository
        host = given.metrics_host or given.plain_host
        with closing(MetricsEndpoint(host, given.ports.metrics, self.metrics, self._server_metrics)):
            try:
                watch = self._take_first()
                self._start()
                ready()
                while not self._stop.wait(_TICK):
                    if reason := self._health.trouble(self._present):
                        self._replace(reason)
                    elif watch and watch.changed() and self._upgrade(repository):
                        watch.done()
            finally:
                self.metrics.up.set(0)
                if self.server:
                    self._finish_accepted(self.server)
                    self.server.end(_REST if self._answering_since else _BRIEFLY)
                    self.server = None

    @property
    def _present(self) -> ServerProcess:
        assert self.server
        return self.server

    def _server_metrics(self) -> bytes:
        server = self.server
        if server is None:
            raise ProbeError("There is no server.")
        return fetch(f"http://{LOOPBACK}:{server.given.ports.metrics}")

    def _take_first(self) -> Watch | None:
        """Make the repository that the server reads, from the newest version of the user's."""
        try:
            staged = self._stage(self._given.repository)
        except ChangingError:
            raise UserError(f"{self._given.repository} is being written to; start again when it is whole.") from None
        interval = self._settings.watch
        watch = Watch(self._given.repository, interval, staged.signature) if interval else None
        self._live = LiveRepository(staged, self._folder / "live")
        self._given = replace(self._given, repository=self._live.folder, poll=True)
        return watch

    def _finish_accepted(self, server: ServerProcess) -> None:
        """Let the server refuse new requests and answer those that it has accepted, as long as `drain` allows.

        Triton's own way to end stops every model at once, and what is between two steps of an ensemble is lost.
        """
        if self._live is None or self._answering_since is None or server.dead():
            return
        since = server.n_lines
        self._live.withdraw()
        unloaded = [f"successfully unloaded '{name}'" for name in self._live.present.public]
        for _ in until(time.monotonic() + self._settings.drain, time.sleep):
            if server.code is not None or all(server.has_said(words, since) for words in unloaded):
                return
        LOG.warning(
            "Requests were still at work after %g s and are lost.", self._settings.drain, extra={"event": "drained"}
        )

    def _start(self) -> None:
        """Start a server and wait for its first answers, or until `stop` is set.

        Raises:
            UserError: it cannot be started, or as `_await_answers`.
        """
        answered = False
        for last in (False, True):
            ports = replace(self._given.ports, metrics=choose_ports(LOOPBACK, Ports(0, 0, 0)).metrics)
            self.server = self._launch(replace(self._given, ports=ports))
            try:
                answered = self._await_answers(self.server)
                break
            except UserError:
                code = self.server.code
                if last or code is None or code >= 0:
                    raise
                self.server.end(0)  # on a busy machine it now and then crashes while its models' processes start
        if not answered:
            return
        self._present.remember_models()
        self._health.reset()
        self._answering_since = time.monotonic()
        self.metrics.up.set(1)

    def _launch(self, given: Arguments) -> ServerProcess:
        try:
            return ServerProcess(self._triton, given, self._backends, self._sink)
        except OSError as error:  # no processes, memory or shared memory left
            raise UserError(f"tritonserver could not be started ({error.strerror}).") from None

    def _await_answers(self, server: ServerProcess, present_is_well: Callable[[], bool] = lambda: True) -> bool:
        """Wait until every model has answered, or `stop` is set.

        Returns:
            Whether they have.

        Raises:
            UserError: the server ended, or did not answer in time.
            InterruptedUpgradeError: the present server is not well.
        """
        timeout = self._settings.start_timeout
        reason = ""
        for _ in until(time.monotonic() + timeout, self._stop.wait):
            if server.code is not None:
                raise UserError(f"tritonserver could not start (code {server.code}).{server.last_words()}")
            if not present_is_well():
                raise InterruptedUpgradeError
            try:
                self._health.ask_all(server)
            except ProbeError as error:
                reason = str(error)
            else:
                return True
        if not self._stop.is_set():
            raise UserError(f"tritonserver did not answer within {timeout:g} s. {reason}{server.last_words()}")
        return False

    def _replace(self, reason: str) -> None:
        """Put another server in the place of one that failed; pauses grow while it keeps failing.

        Raises:
            UserError: it could not be started several times in a row.
        """
        LOG.warning("%s; restarting the server.", reason, extra={"event": "restart"})
        self.metrics.up.set(0)
        steady = self._answering_since is None or time.monotonic() - self._answering_since > _STEADY
        self._answering_since = None
        self._crashes = 0 if steady else self._crashes + 1
        for failures in range(_MOST_FAILURES):
            self._present.end(0)
            if self._stop.wait(_pause(self._crashes + failures)):
                return
            try:
                self._start()
            except UserError as error:
                LOG.error("%s", error, extra={"event": "restart_failed"})
                last = error
                continue
            if not self._stop.is_set():
                self.restarts += 1
                self.metrics.restarts.inc()
                LOG.warning("The server answers again.", extra={"event": "restarted"})
            return
        raise UserError(f"The server failed {_MOST_FAILURES} times in a row to start again; giving up. {last}")

    def _stage(self, repository: Path) -> Staged:
        self._n_staged += 1
        versioned = self._settings.watch is not None
        return stage(repository, self._folder / f"staged-{self._n_staged}", versioned, self._given.profile)

    def _upgrade(self, repository: Path) -> bool:
        """Try a new version on a server of its own, then bring the present one to it.

        Returns:
            Whether it was taken or refused; false when it is to be looked at again.
        """
        staged: Staged | None = None
        try:
            staged = self._stage(repository)
            _check_sums(repository, staged)
            assert self._live
            self._live.check_fits(staged)
            LOG.info("Trying version %d ...", staged.version, extra={"event": "upgrade"})
            self._try(staged)
            timeout = self._settings.start_timeout
            move(self._present, self._live, staged, lambda: until(time.monotonic() + timeout, self._stop.wait))
        except (ChangingError, InterruptedUpgradeError):
            return False
        except UserError as error:
            if self._stop.is_set():
                return False
            self.metrics.upgrades.labels("refused").inc()
            LOG.error("The new version is not taken, the old one serves on: %s", error, extra={"event": "refused"})
            return True
        finally:
            self._health.reset()
            if staged and self._live and staged is not self._live.present:
                shutil.rmtree(staged.folder, ignore_errors=True)
        self.upgrades += 1
        self.metrics.upgrades.labels("done").inc()
        LOG.info("Version %d serves.", staged.version, extra={"event": "upgraded"})
        return True

    def _try(self, staged: Staged) -> None:
        """Start a version beside the present one, unseen from outside, and let it answer.

        Raises:
            UserError: it does not.
        """
        ports = choose_ports(LOOPBACK, Ports(0, 0, 0))
        trial = self._launch(Arguments(staged.repository, LOOPBACK, ports))
        present = self._present
        try:
            self._await_answers(trial, lambda: present.dead() is None)
        finally:
            trial.end(0)


def _pause(failures: int) -> float:
    """Seconds before a start: none for the first failure, then doubling."""
    return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), _LONGEST_PAUSE)


def _check_sums(repository: Path, staged: Staged) -> None:
    """Refuse a version that is not as it was exported.

    Raises:
        UserError: naming the file.
        ChangingError: the repository was changed since the copy.
    """
    try:
        verify(repository)
    except UserError:
        with suppress(OSError):  # of a repository that is being replaced
            if signature(repository) == staged.signature:
                raise
        raise ChangingError from None
