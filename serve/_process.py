"""One tritonserver and the processes that run its models, from start to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from serve._shared_memory import SharedMemory
from serve._triton import Arguments, Installation

_LAUNCH = Path(__file__).with_name("_launch.py")
_KEPT_LINES = 400
_QUOTED, _LONGEST = 6, 400  # lines and characters of them in an error


class ServerProcess:
    """A tritonserver that was started and is to be ended with all that belongs to it.

    Args:
        triton: what to run.
        given: with what.
        backends: what `Installation.link_backends` filled.
        sink: told each line of the server's log, from a thread of its own.

    Attributes:
        given: as above.
        pid: of the server.
        n_lines: that it has logged so far.
    """

    def __init__(self, triton: Installation, given: Arguments, backends: Path, sink: Callable[[str], None]) -> None:
        self.given = given
        self._memory: SharedMemory | None = SharedMemory()
        command = triton.command(given, backends, self._memory.prefix)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=triton.environment(given),
                pass_fds=[self._memory.lock],
                start_new_session=True,  # a terminal's Ctrl-C reaches us alone; the group ends as one
            )
        except BaseException:
            self._memory.remove()
            raise
        self.pid = self._process.pid
        self._models: frozenset[int] = frozenset()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.n_lines = 0
        self._reader = threading.Thread(target=self._read, args=(sink,), name="mbdcnn-log", daemon=True)
        self._reader.start()

    @property
    def code(self) -> int | None:
        """The server's code of exit; None while it runs."""
        return self._process.poll()

    def remember_models(self) -> None:
        """Take the processes that run models now for those that must live."""
        self._models = stubs(self.pid)

    def dead(self) -> str | None:
        """Which process is missing; None when all live."""
        if self.code is not None:
            return "tritonserver has ended"
        if not self._models <= stubs(self.pid):
            return "A model's process has died"
        return None

    def end(self, patience: float) -> None:
        """End the server and every process of its group, then remove its shared memory; a second time does nothing.

        Args:
            patience: seconds that it has to end by itself, after it was asked to; 0 does not ask.
        """
        if self._memory is None:
            return
        if patience and self.code is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # the models' processes belong to the group too
        self._process.wait()
        self._reader.join()
        self._memory.remove()
        self._memory = None

    def has_said(self, words: str, since: int) -> bool:
        """Whether a line of the server's log after the first `since` holds these words."""
        recent = list(self._lines)[-max(self.n_lines - since, 1) :]
        return self.n_lines > since and any(words in line for line in recent)

    def last_words(self) -> str:
        """The end of the server's log, only its errors where there are any."""
        if self.code is not None:
            self._reader.join(2.0)  # its last lines may be on their way
        lines = [line.partition("\\n\\nAt:")[0] for line in list(self._lines) if line.strip()]
        errors = [line for line in lines if line.startswith("E") and "cuda" not in line.lower()]
        words = dict.fromkeys(line[:_LONGEST] for line in (errors or lines)[-_QUOTED:])
        return "".join(f"\n  {line}" for line in words)

    def _read(self, sink: Callable[[str], None]) -> None:
        assert self._process.stdout
        with self._process.stdout as pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip("\n")
                self._lines.append(line)
                self.n_lines += 1
                with contextlib.suppress(OSError, ValueError):  # a full disk must not stop the server
                    sink(line)


def stubs(pid: int) -> frozenset[int]:
    """The living processes that run the models of the server `pid` (Linux)."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (name) state parent ...; the name may hold spaces and brackets
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(parent) == pid and state not in "ZX":
            found.add(int(entry.name))
    return frozenset(found)
