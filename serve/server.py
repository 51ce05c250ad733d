"""Run the real tritonserver on a model repository, and keep it answering."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType, TracebackType

from mbdcnn.errors import UserError
from serve._triton import Installation, Ports, choose_ports, stubs
from serve.client import MODEL, TINY_IMAGE, Client, DeadlineExceededError

_TICK = 1.0
_SHARED_MEMORY = Path("/dev/shm")
_NUMBER = count()  # tells the servers of one process apart


class TritonServer:
    """A tritonserver that answers, is restarted when it no longer does, and leaves nothing behind.

    Triton itself neither restarts a model's process that died nor reports it, so a real tiny inference is
    asked every few seconds and the models' processes are counted.

    Args:
        repository: what `mbdcnn export` wrote.
        ports: where to listen; 0 takes any free port.
        host: the address to listen on; anyone who can reach it can ask, so the default is this machine only.
        log: where tritonserver's log goes; a temporary file that a clean stop removes when None.
        announce: told, one sentence at a time, when the server starts and when it is restarted.
        start_timeout: seconds until the first inference must have succeeded.
        probe_interval: seconds between two tiny inferences; processes are counted every second.
        hung_after: seconds without any answer after which a server that still lives counts as hung.
    """

    def __init__(
        self,
        repository: str | Path,
        ports: Ports = Ports(0, 0, 0),  # noqa: B008 - frozen
        host: str = "127.0.0.1",
        *,
        log: Path | None = None,
        announce: Callable[[str], None] = lambda _: None,
        start_timeout: float = 180.0,
        probe_interval: float = 5.0,
        hung_after: float = 60.0,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.host = host
        self.ports = ports
        self.restarts = 0
        self._wanted_log = log
        self._announce = announce
        self._start_timeout = start_timeout
        self._probe_interval = probe_interval
        self._hung_after = hung_after
        self._prefix = f"mbdcnn_{os.getpid()}_{next(_NUMBER)}_"
        self._process: subprocess.Popen[bytes] | None = None
        self._stubs: frozenset[int] = frozenset()
        self._settled = threading.Event()  # the first start has succeeded or failed
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def grpc_url(self) -> str:
        """`HOST:PORT` for the client."""
        return f"{self._reach}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """Address of the HTTP end point."""
        return f"http://{self._reach}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """Address of the Prometheus metrics."""
        return f"http://{self._reach}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        """The server's process; None while there is none."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """Where tritonserver's log lies."""
        return self._log

    @property
    def _reach(self) -> str:
        """The address under which this machine reaches the server."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> TritonServer:
        """Start the server and wait until it has answered.

        Raises:
            UserError: not a model repository, a port taken, tritonserver not installed, or no answer in time
                (with the last lines of the server's log).
        """
        if not self.repository.is_dir():
            raise UserError(f"There is no model repository {self.repository}; write one with `mbdcnn export`.")
        if not (self.repository / MODEL / "config.pbtxt").is_file():
            raise UserError(
                f"{self.repository} is not a model repository (no {MODEL}/config.pbtxt); "
                "write one with `mbdcnn export`."
            )
        self._triton = Installation.find()
        self.ports = choose_ports(self.host, self.ports)
        self._folder = Path(tempfile.mkdtemp(prefix="mbdcnn-serve-"))
        self._log = (self._wanted_log or self._folder / "tritonserver.log").absolute()
        try:
            self._triton.link_backends(self._folder / "backends")
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.touch()
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise UserError(f"{self._log} cannot be written ({error.strerror}); choose another log file.") from None
        self._announce(f"Starting tritonserver on {self.repository} ...")
        # One thread starts, watches and stops the server: it ends when the thread that started it does.
        self._thread = threading.Thread(target=self._run, name="mbdcnn-serve", daemon=True)
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:  # Ctrl-C while waiting
            self.stop()
            raise
        if self._failure:
            self._thread.join()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise self._failure
        return self

    def stop(self) -> None:
        """Stop the server and its models' processes and remove their shared memory; may be called twice."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> None:
        """Raise what ended the supervision, if anything did."""
        if self._failure:
            raise self._failure

    def request_stop(self) -> None:
        """Ask a server that is starting or running to stop, without waiting; safe in a signal handler."""
        self._stop.set()

    def _run(self) -> None:
        try:
            self._launch()
            self._wait_until_answering()
            self._settled.set()
            self._supervise()
        except BaseException as error:  # handed to the thread that waits in `start`
            self._failure = error
        finally:
            self._end(gently=True)
            self._settled.set()

    def _supervise(self) -> None:
        pause = _TICK
        self._answered = self._asked = time.monotonic()
        self._refusals = 0
        while not self._stop.wait(pause):
            pause = _TICK
            reason = self._dead() or self._mute()
            if reason is None:
                continue
            self._announce(f"{reason}; restarting the server.")
            self._end(gently=False)
            try:
                self._launch()
                self._wait_until_answering()
            except (UserError, OSError) as error:
                self._announce(f"{error} Trying again in 10 s.")
                pause = 10.0
            else:
                if not self._stop.is_set():
                    self.restarts += 1
                    self._announce("The server answers again.")
            self._answered, self._refusals = time.monotonic(), 0

    def _dead(self) -> str | None:
        """Which process is missing; None when all live."""
        if self._process is None or self._process.poll() is not None:
            return "tritonserver has ended"
        if not self._stubs <= stubs(self._process.pid):
            return "A model's process has died"
        return None

    def _mute(self) -> str | None:
        """Why the server counts as not answering; None when it does, or when it is only slow so far."""
        if time.monotonic() - self._asked < (_TICK if self._refusals else self._probe_interval):
            return None
        self._asked = time.monotonic()
        try:
            self._probe(self._probe_client, 5.0)
        except DeadlineExceededError:  # a long queue looks the same, and a restart would lose what waits in it
            return "The server hangs" if time.monotonic() - self._answered > self._hung_after else None
        except UserError:
            self._refusals += 1
            return "The server no longer answers" if self._refusals > 1 else None
        self._answered, self._refusals = time.monotonic(), 0
        return None

    @staticmethod
    def _probe(client: Client, deadline: float) -> None:
        client.deadline = deadline
        client.infer([TINY_IMAGE], ["PROBABILITIES", "MASK_PNG"])  # these two need every model

    def _launch(self) -> None:
        triton = self._triton
        command = triton.command(self.repository, self._folder / "backends", self.host, self.ports, self._prefix)
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_launch.py")), str(os.getpid())]
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=triton.environment(),
                start_new_session=True,  # a terminal's Ctrl-C reaches us alone; the group ends as one
            )
        self._probe_client = Client(self.grpc_url)

    def _wait_until_answering(self) -> None:
        assert self._process
        end = time.monotonic() + self._start_timeout
        while not self._stop.wait(0.1):
            if self._process.poll() is not None:
                raise UserError(f"tritonserver could not start (code {self._process.returncode}).{self._last_words()}")
            try:
                self._probe(self._probe_client, 5.0)
            except UserError:
                if time.monotonic() > end:
                    raise UserError(
                        f"tritonserver did not answer within {self._start_timeout:g} s.{self._last_words()}"
                    ) from None
            else:
                self._stubs = stubs(self._process.pid)
                return

    def _end(self, *, gently: bool) -> None:
        """End the server and every process of its group, then remove its shared memory."""
        process, self._process = self._process, None
        if process is None:
            return
        self._probe_client.close()
        if gently and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the models' processes belong to the group too
        process.wait()
        for left in _SHARED_MEMORY.glob(f"{self._prefix}*"):
            with contextlib.suppress(OSError):
                left.unlink()

    def _last_words(self) -> str:
        """The end of this start's log, errors first where there are any."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [x for x in lines if (x.startswith("E") or "error" in x.lower()) and "cuda" not in x.lower()]
        return "".join(f"\n  {line}" for line in (errors or lines)[-8:])


def serve(
    repository: str | Path,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    host: str = "127.0.0.1",
    *,
    log: Path | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve a model repository until SIGINT or SIGTERM; what `mbdcnn serve` does.

    Args:
        repository: what `mbdcnn export` wrote.
        http_port: of the HTTP end point; 0 takes any free port, here and below.
        grpc_port: of the gRPC end point.
        metrics_port: of the Prometheus metrics.
        host: the address to listen on.
        log: where tritonserver's log goes; a temporary file when None.
        announce: told what a person should know; standard error when None.

    Raises:
        UserError: as `TritonServer.start`.
    """
    say = announce or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
    server = TritonServer(repository, Ports(http_port, grpc_port, metrics_port), host, log=log, announce=say)
    asked = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        asked.set()
        server.request_stop()

    in_main = threading.current_thread() is threading.main_thread()
    previous = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if in_main}
    try:
        server.start()
        if not asked.is_set():
            say(
                f"Ready: gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}; "
                f"log {server.log}. Stop with Ctrl-C."
            )
        while not asked.wait(0.5):
            server.check()
    finally:
        server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    say("Stopped.")
