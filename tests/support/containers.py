"""Containers of the manifests, run as processes of this machine: other paths, ports and settings, the same programs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manifests import Document, named
from policies import words

_PROGRAMS = {
    "mbdcnn": [sys.executable, "-m", "mbdcnn"],
    "python": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
}


@dataclass(frozen=True)
class Machine:
    """What stands here for a node.

    Attributes:
        settings: in place of some of the ConfigMap's.
        places: a local folder for the beginning of each path, and another address for each address.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def command(self, container: Document, documents: list[Document]) -> list[str]:
        """A container's command line, as the kubelet would expand it, for this machine."""
        return self.local(words(container), documents)

    def probe(self, container: Document, kind: str) -> list[str]:
        """The command line of a probe."""
        return self.local(container[kind]["exec"]["command"], [])

    def local(self, command: list[str], documents: list[Document]) -> list[str]:
        """A command line with its settings, paths and addresses."""
        settings = {**(named(documents, "ConfigMap", "settings")["data"] if documents else {}), **self.settings}
        expanded = [re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], word) for word in command]
        for place, here in self.places.items():
            expanded = [word.replace(place, here) for word in expanded]
        program, *rest = expanded
        python = [sys.executable if word == "python" else word for word in rest]
        return [*_PROGRAMS[program], *python]


class Running:
    """A container that runs until it is told to stop.

    Args:
        command: its command line.
        log: where it writes.
        environment: beside this process's.
    """

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **(environment or {})}, start_new_session=True
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_for(self, condition: object, seconds: float = 300) -> None:
        """Wait until a function says so, while the container runs."""
        assert callable(condition)
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"too slow: {self.log.read_text()[-3000:]}"
            time.sleep(0.2)

    def terminate(self, seconds: float = 300) -> tuple[int, float]:
        """End it as the kubelet does; its exit code, and how long it took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds), time.monotonic() - start

    def kill(self) -> None:
        """Lose it and all its processes at once, as with its node."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
