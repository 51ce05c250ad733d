"""Run the real tritonserver on a model repository, and keep it answering."""

from __future__ import annotations

import logging
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TextIO

from mbdcnn.errors import UserError
from serve._log import LOG, handler, relay
from serve._ports import LOOPBACK, Ports, choose_ports, reach
from serve._profiles import EMBEDDED
from serve._shared_memory import remove_orphans
from serve._supervisor import Settings, Supervisor
from serve._tls import ServerTls
from serve._triton import Arguments, Installation
from serve.probe import MODEL

_FUSED = "mbdcnn_fused"


class TritonServer:
    """A tritonserver that answers, is restarted when it no longer does, and leaves nothing behind.

    Args:
        repository: what `mbdcnn export` wrote.
        ports: where to listen; 0 takes any free port.
        host: the address to listen on; anyone who can reach it can ask, so the default is this machine only.
        tls: for the gRPC end point; HTTP and metrics then listen on this machine only.
        metrics_host: the address on which the metrics listen all the same, without TLS; they tell nothing of images.
        profile: which of the repository's configurations to take; another than `embedded` wants a server of NVIDIA's.
        log: where tritonserver's log goes; a temporary file that a clean stop removes when None.
        sink: told each line of tritonserver's log instead.
        watch: seconds between two looks for a new version in the repository; never when None.
        drain: seconds that accepted requests have to finish when the server is stopped.
        start_timeout: seconds until the first inference must have succeeded.
        probe_interval: seconds between two tiny inferences; processes are counted every second.
        hung_after: seconds without an answer and without any work after which a server that lives counts as hung.
    """

    def __init__(
        self,
        repository: str | Path,
        ports: Ports = Ports(0, 0, 0),  # noqa: B008 - frozen
        host: str = LOOPBACK,
        *,
        tls: ServerTls | None = None,
        metrics_host: str | None = None,
        profile: str = EMBEDDED,
        log: Path | None = None,
        sink: Callable[[str], None] | None = None,
        watch: float | None = None,
        drain: float = 25.0,
        start_timeout: float = 180.0,
        probe_interval: float = 5.0,
        hung_after: float = 60.0,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.host = host
        self.ports = ports
        self._tls = tls
        self._metrics_host = metrics_host
        self._profile = profile
        self._wanted_log = log
        self._sink = sink
        self._settings = Settings(watch, drain, start_timeout, probe_interval, hung_after)
        self._log_file: TextIO | None = None
        self._supervisor: Supervisor | None = None
        self._settled = threading.Event()  # the first start has succeeded or failed
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def grpc_url(self) -> str:
        """`HOST:PORT` for the client."""
        return f"{reach(self.host)}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """Address of the HTTP end point."""
        return f"http://{reach(self._plain_host)}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """Address of the Prometheus metrics."""
        return f"http://{reach(self._metrics_host or self._plain_host)}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        """The server's process; None while there is none."""
        server = self._supervisor.server if self._supervisor else None
        return server.pid if server else None

    @property
    def restarts(self) -> int:
        """How often the server was replaced."""
        return self._supervisor.restarts if self._supervisor else 0

    @property
    def upgrades(self) -> int:
        """How many new versions were taken."""
        return self._supervisor.upgrades if self._supervisor else 0

    @property
    def log(self) -> Path:
        """Where tritonserver's log lies."""
        return self._log

    @property
    def _plain_host(self) -> str:
        """Where the end points listen that know no TLS."""
        return LOOPBACK if self._tls else self.host

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> TritonServer:
        """Start the server and wait until it has answered.

        Raises:
            UserError: not a model repository, a port taken, unusable TLS files, tritonserver not installed, or no
                answer in time (with the last lines of the server's log).
        """
        if not self.repository.is_dir():
            raise UserError(f"There is no model repository {self.repository}; write one with `mbdcnn export`.")
        if not (self.repository / MODEL / "config.pbtxt").is_file():
            raise UserError(
                f"{self.repository} is not a model repository (no {MODEL}/config.pbtxt); "
                "write one with `mbdcnn export`."
            )
        if self._tls:
            self._tls.check()
        triton = Installation.find(self._profile)
        self.ports = choose_ports(self.host, self.ports)
        remove_orphans()
        self._folder = Path(tempfile.mkdtemp(prefix="mbdcnn-serve-"))
        self._log = (self._wanted_log or self._folder / "tritonserver.log").absolute()
        try:
            triton.link_backends(self._folder / "backends")
            if self._sink is None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                self._log_file = self._log.open("a", buffering=1)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise UserError(f"{self._log} cannot be written ({error.strerror}); choose another log file.") from None
        given = Arguments(self.repository, self.host, self.ports, self._tls, self._metrics_host, self._profile)
        models = tuple(m for m in (MODEL, _FUSED) if (self.repository / m / "config.pbtxt").is_file())
        sink = self._sink or self._write_line
        self._supervisor = Supervisor(triton, given, models, self._settings, self._folder, sink, self._stop)
        LOG.info("Starting tritonserver on %s ...", self.repository, extra={"event": "start"})
        self._thread = threading.Thread(target=self._run, name="mbdcnn-serve", daemon=True)
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:  # Ctrl-C while waiting
            self.stop()
            raise
        if self._failure:
            self.stop()
            raise self._failure
        return self

    def stop(self) -> None:
        """Let the server finish what it accepted, end it and remove all of it; may be called twice."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
            if self._log_file:
                self._log_file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> None:
        """Raise what ended the supervision, if anything did."""
        if self._failure:
            raise self._failure

    def request_stop(self) -> None:
        """Ask a server that is starting or running to stop, without waiting; safe in a signal handler."""
        self._stop.set()

    def _run(self) -> None:
        assert self._supervisor
        try:
            self._supervisor.run(self._settled.set)
        except BaseException as error:  # handed to the thread that waits in `start`, or asks in `check`
            self._failure = error
        finally:
            self._settled.set()

    def _write_line(self, line: str) -> None:
        assert self._log_file
        self._log_file.write(f"{line}\n")


def serve(
    repository: str | Path,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    host: str = LOOPBACK,
    *,
    tls: ServerTls | None = None,
    metrics_host: str | None = None,
    profile: str = EMBEDDED,
    log: Path | None = None,
    json_logs: bool = False,
    watch: float | None = None,
    drain: float = 25.0,
    start_timeout: float = 180.0,
) -> None:
    """Serve a model repository until SIGINT, SIGTERM or SIGHUP (not under nohup); what `mbdcnn serve` does.

    Args:
        repository: what `mbdcnn export` wrote.
        http_port: of the HTTP end point; 0 takes any free port, here and below.
        grpc_port: of the gRPC end point.
        metrics_port: of the Prometheus metrics.
        host: the address to listen on.
        tls: for gRPC.
        metrics_host: the address on which the metrics listen; where HTTP does when None.
        profile: which of the repository's configurations to take.
        log: where tritonserver's log goes; a temporary file when None.
        json_logs: say everything, tritonserver's log too, as JSON lines on standard error.
        watch: seconds between two looks for a new version in the repository; never when None.
        drain: seconds that accepted requests have to finish at the end.
        start_timeout: seconds until the first inference must have succeeded, also of a new version.

    Raises:
        UserError: as `TritonServer.start`; also when a server could not be started again.
    """
    ports = Ports(http_port, grpc_port, metrics_port)
    sink = relay if json_logs else None
    server = TritonServer(
        repository,
        ports,
        host,
        tls=tls,
        metrics_host=metrics_host,
        profile=profile,
        log=log,
        sink=sink,
        watch=watch,
        drain=drain,
        start_timeout=start_timeout,
    )
    asked = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        asked.set()
        server.request_stop()

    previous = {}
    if threading.current_thread() is threading.main_thread():
        ends = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asks for
            ends.append(signal.SIGHUP)
        previous = {number: signal.signal(number, end) for number in ends}
    out = handler(json_logs)
    LOG.addHandler(out)
    level, LOG.propagate = LOG.level, False
    LOG.setLevel(logging.INFO)
    try:
        server.start()
        if not asked.is_set():
            where = f"gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}"
            kept = "" if json_logs else f"; log {server.log}"
            LOG.info("Ready: %s%s. Stop with Ctrl-C.", where, kept, extra={"event": "ready"})
        while not asked.wait(0.5):
            server.check()
        LOG.info("Stopping when the requests at work are answered.", extra={"event": "stopping"})
    finally:
        server.stop()
        for number, old in previous.items():
            signal.signal(number, old)
        if asked.is_set():
            LOG.info("Stopped.", extra={"event": "stopped"})
        LOG.removeHandler(out)
        LOG.propagate = True
        LOG.setLevel(level)
