"""Pods that serve, as the manifests start them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from containers import Machine, Running
from manifests import Document, manifests, named

from serve._ports import Ports, choose_ports


@dataclass(frozen=True)
class ServerPod:
    """A server as the manifests start it.

    Attributes:
        running: the container.
        ports: in place of 8000, 8001, 8002.
        machine: where it runs.
        container: what the manifests say of it.
    """

    running: Running
    ports: Ports
    machine: Machine
    container: Document

    def asked(self, probe: str) -> int:
        """The exit code of a probe."""
        return subprocess.run(self.machine.probe(self.container, probe), capture_output=True, timeout=120).returncode


@contextmanager
def start_server(
    way: str, models: Path, folder: Path, host: str = "127.0.0.1", places: dict[str, str] | None = None
) -> Iterator[ServerPod]:
    """A ready pod of the Deployment, which finds its repository below `models`."""
    documents = manifests(way)
    container = named(documents, "Deployment", "server")["spec"]["template"]["spec"]["containers"][0]
    ports = choose_ports(host, Ports(0, 0, 0))
    addresses = {f"{sign}{8000 + i}": f"{sign}{port}" for sign in "=:" for i, port in enumerate(_numbers(ports))}
    machine = Machine(
        {"WATCH_SECONDS": "0.5", "PROFILE": "embedded"},
        {"/models/": f"{models}/", "--host=0.0.0.0": f"--host={host}", **addresses, **(places or {})},
    )
    folder.mkdir()
    with Running(machine.command(container, documents), folder / "log", {"TMPDIR": str(folder)}) as running:
        pod = ServerPod(running, ports, machine, container)
        running.wait_for(lambda: pod.asked("startupProbe") == 0)
        yield pod


def _numbers(ports: Ports) -> tuple[int, int, int]:
    return ports.http, ports.grpc, ports.metrics
