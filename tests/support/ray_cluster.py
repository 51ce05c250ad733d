"""A Ray cluster of one machine, on ports of its own, for tests that send it real jobs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
_WAIT_S = 180
# those that Ray does not choose by itself: a second cluster on the machine would share them
_PORTS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """Of Ray's commands: this Python first, no cluster but the one that is named, and no tokens."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(RAY.parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": ""}


class Head:
    """The head node."""

    def __init__(self, cpus: int) -> None:
        # in /tmp, as the paths of Ray's sockets must be short
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        ports = {f"--{name}": free_port() for name in _PORTS}
        self.address = f"127.0.0.1:{ports['--port']}"
        self.jobs = f"http://127.0.0.1:{ports['--dashboard-port']}"
        options = ["--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--num-cpus", str(cpus)]
        options += ["--object-store-memory", "100000000", "--disable-usage-stats", "--temp-dir", str(self.folder)]
        options += [word for name, port in ports.items() for word in (name, str(port))]
        self._log = (self.folder / "head.log").open("wb")
        self._process = subprocess.Popen(
            [RAY, "start", "--head", "--block", *options],
            env=environment(),
            cwd="/",
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        """Wait until it takes jobs; it answers before it does."""
        deadline = time.monotonic() + _WAIT_S
        while subprocess.run([*self._job("submit"), "--", "true"], env=environment(), capture_output=True).returncode:
            assert self._process.poll() is None, (self.folder / "head.log").read_text()
            assert time.monotonic() < deadline, "the head does not answer"
            time.sleep(1)

    def submit(self, folder: Path, *words: str | Path) -> subprocess.Popen[str]:
        """Send a job with a folder as its working directory; the process waits for the job's end."""
        command = [*self._job("submit"), "--working-dir", str(folder), "--", *map(str, words)]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def kill(self) -> None:
        """Kill the node at once, with everything on it; a second time does nothing."""
        if self._log.closed:
            return
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _job(self, verb: str) -> list[str]:
        return [str(RAY), "job", verb, "--address", self.jobs]

    def _processes(self) -> list[int]:
        """Of this cluster alone: its own process, and all below it or that name its folder."""
        parents = {pid: parent for pid in _pids() if (parent := _parent(pid))}
        own = {self._process.pid} | {pid for pid in parents if str(self.folder) in " ".join(arguments(pid))}
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        return sorted(own - {os.getpid()})


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def arguments(pid: int) -> list[str]:
    """A process's command line; empty for one that has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def find(*words: str) -> list[int]:
    """The Python processes whose command line begins so after the interpreter."""
    return [pid for pid in _pids() if tuple(arguments(pid)[1 : 1 + len(words)]) == words]
