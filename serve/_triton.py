"""Where the tritonserver that pip installs lies, and what it needs to start."""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mbdcnn.errors import UserError

_INSTALL = "install it with `pip install 'mbdcnn[serve]'` (Linux, Python 3.10 to 3.12)"
# Nobody needs to change models, register shared memory, trace or set log levels over the network.
_RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")


@dataclass(frozen=True)
class Ports:
    """Where the server listens; 0 asks for any free port."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


@dataclass(frozen=True)
class Installation:
    """The parts of the `nvidia-pytriton` wheel that a server needs."""

    root: Path
    stub: Path

    @property
    def binary(self) -> Path:
        """The server itself."""
        return self.root / "bin" / "tritonserver"

    @classmethod
    def find(cls) -> Installation:
        """Locate the wheel's files without importing it.

        Raises:
            UserError: it is not installed, or it has no stub for this Python.
        """
        spec = importlib.util.find_spec("pytriton")
        root = Path(spec.origin).parent / "tritonserver" if spec and spec.origin else None
        if root is None or not (root / "bin" / "tritonserver").exists():
            raise UserError(f"tritonserver is not installed; {_INSTALL}.")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise UserError(f"The installed tritonserver cannot run models with Python {version}; use 3.10 to 3.12.")
        # with NumPy 2 the stub returns FP32 outputs empty, without an error
        if int(metadata.version("numpy").partition(".")[0]) >= 2:
            raise UserError("tritonserver's models need NumPy 1; install it with `pip install 'numpy<2'`.")
        return cls(root, stub)

    def link_backends(self, folder: Path) -> None:
        """Assemble the backend directory: the Python backend with the stub of the running interpreter."""
        python = folder / "python"
        python.mkdir(parents=True)
        backend = self.root / "backends" / "python"
        for part in (backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", self.stub):
            (python / part.name).symlink_to(part)

    def environment(self) -> dict[str, str]:
        """Where the server and its stubs find their libraries and this interpreter's packages."""
        # the stub links libpython; the wheel's own libraries lie beside the packages
        libraries = [
            str(sysconfig.get_config_var("LIBDIR")),
            str(self.root.parent.parent / "nvidia_pytriton.libs"),
        ]
        # the stub runs Python in isolated mode: no PYTHON* variable reaches it, PATH tells it which environment
        return os.environ | {
            "LD_LIBRARY_PATH": ":".join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "OMP_NUM_THREADS": "1",
        }

    def command(self, repository: Path, backends: Path, host: str, ports: Ports, prefix: str) -> list[str]:
        """The server's command line, hardened as far as release 24.10 can be.

        Args:
            repository: the model repository.
            backends: what `link_backends` filled.
            host: the address to listen on.
            ports: none of them 0.
            prefix: of the server's shared-memory files.
        """
        key = secrets.token_hex(16)  # kept by nobody: nobody is meant to have it
        return [
            str(self.binary),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            "--model-control-mode=none",
            "--exit-on-error=true",
            "--strict-readiness=true",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=5",
            f"--http-address={host}",
            f"--http-port={ports.http}",
            f"--grpc-address={host}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-address={host}",
            f"--metrics-port={ports.metrics}",
            "--allow-gpu-metrics=false",
            *(f"--grpc-restricted-protocol={p}:mbdcnn-control={key}" for p in _RESTRICTED),
            *(f"--http-restricted-api={p}:mbdcnn-control={key}" for p in _RESTRICTED),
        ]


def choose_ports(host: str, wanted: Ports) -> Ports:
    """Replace 0 by a free port and check that the others are free.

    Raises:
        UserError: a port is taken or the address is not one of this machine's.
    """
    if ":" in host:  # the server's three listeners each want another notation
        raise UserError(f"{host} is an IPv6 address, which the server does not take; change --host.")
    held: list[socket.socket] = []
    try:
        for name in ("http", "grpc", "metrics"):
            held.append(_bind(host, getattr(wanted, name), name))
        return Ports(*(s.getsockname()[1] for s in held))
    finally:
        for s in held:  # held until all are chosen, so that no two are the same
            s.close()


def _bind(host: str, port: int, name: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError):
        raise UserError(f"{host} port {port} is not an address to listen on; change --host or --{name}-port.") from None
    s = socket.socket(family, kind, protocol)
    # a connection that is closing must not count as taken; one that listens still does
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(address)
        s.listen(1)
    except OSError as error:
        s.close()
        if isinstance(error, PermissionError):
            raise UserError(
                f"Port {port} may not be opened by this user; choose one above 1023 with --{name}-port."
            ) from None
        if error.errno == 98:  # EADDRINUSE
            raise UserError(f"Port {port} on {host} is taken; free it or choose another with --{name}-port.") from None
        raise UserError(f"{host} is not an address of this machine; change --host.") from None
    return s


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
