"""Where a tritonserver lies, the one that pip installs or that of NVIDIA's image, and what it needs to start."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mbdcnn.errors import UserError
from serve._ports import LOOPBACK, Ports, reach
from serve._profiles import EMBEDDED
from serve._tls import ServerTls

_OWN = "MBDCNN_TRITONSERVER"  # names the folder of another server than that of NVIDIA's image
_INSTALL = "install it with `pip install 'mbdcnn[serve]'` (Linux, Python 3.10 to 3.12)"
# A client that balances looks for new servers only when a connection ends; requests at work outlive it.
_CONNECTION_AGE_MS = 300_000
# Nobody needs to change models, register shared memory, trace or set log levels over the network.
_RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
# Tensors of one request use the memory of the one before; by itself glibc returns it to the system after each.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**26), "MALLOC_MMAP_THRESHOLD_": str(2**26)}


@dataclass(frozen=True)
class Arguments:
    """What one server is started with.

    Attributes:
        repository: the model repository.
        host: the address to listen on.
        ports: none of them 0; the metrics' is always on loopback, for the supervisor alone.
        tls: of the gRPC end point. Triton's HTTP has none, so with it HTTP is for this machine alone.
        metrics_host: where the metrics listen; where HTTP does when None.
        profile: which of the repository's configurations it takes.
        poll: follow changes of the repository, which must then be the supervisor's own.
    """

    repository: Path
    host: str
    ports: Ports
    tls: ServerTls | None = None
    metrics_host: str | None = None
    profile: str = EMBEDDED
    poll: bool = False

    @property
    def plain_host(self) -> str:
        """Where the end points listen that know no TLS."""
        return LOOPBACK if self.tls else self.host

    @property
    def http_url(self) -> str:
        """Address of the HTTP end point from this machine."""
        return f"http://{reach(self.plain_host)}:{self.ports.http}"


@dataclass(frozen=True)
class Installation:
    """The parts of a tritonserver that are needed to run it.

    Attributes:
        root: holds `bin` and `backends`.
        stub: runs Python models with this interpreter; None where the Python backend brings one of its own.
    """

    root: Path
    stub: Path | None

    @property
    def binary(self) -> Path:
        """The server itself."""
        return self.root / "bin" / "tritonserver"

    @classmethod
    def find(cls, profile: str) -> Installation:
        """Locate what a profile runs on: the `nvidia-pytriton` wheel, or a server with the backends that GPUs need.

        Raises:
            UserError: it is not installed, or it has no stub for this Python.
        """
        if profile == EMBEDDED:
            return cls._of_wheel()
        root = Path(os.environ.get(_OWN, "/opt/tritonserver"))
        if not (root / "bin" / "tritonserver").exists():
            raise UserError(
                f"There is no tritonserver in {root}, which the profile {profile} needs; run it in NVIDIA's image, "
                f"name the server's folder in {_OWN}, or take --profile {EMBEDDED}."
            )
        return cls(root, None)

    @classmethod
    def _of_wheel(cls) -> Installation:
        """Locate the wheel's files without importing it."""
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
        """Assemble the backend directory; of the wheel, the Python backend with the stub of the running interpreter."""
        if self.stub is None:
            folder.symlink_to(self.root / "backends")
            return
        python = folder / "python"
        python.mkdir(parents=True)
        backend = self.root / "backends" / "python"
        for part in (backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", self.stub):
            (python / part.name).symlink_to(part)

    def environment(self, given: Arguments) -> dict[str, str]:
        """Where the server and its stubs find their libraries, the interpreter's packages and the server's metrics."""
        # the wheel's stub links libpython, and its own libraries lie beside the packages
        wheel = [str(sysconfig.get_config_var("LIBDIR")), str(self.root.parent.parent / "nvidia_pytriton.libs")]
        libraries = wheel if self.stub else []
        # the stub runs Python in isolated mode: no PYTHON* variable reaches it, PATH tells it which environment
        return os.environ | {
            "LD_LIBRARY_PATH": ":".join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "OMP_NUM_THREADS": "1",
            "MBDCNN_METRICS_PORT": str(given.ports.metrics),  # templates/backlog.py asks there
            **_KEEP_MEMORY,
        }

    def command(self, given: Arguments, backends: Path, prefix: str) -> list[str]:
        """The server's command line, hardened as far as release 24.10 can be.

        Args:
            given: what this server is to be.
            backends: what `link_backends` filled.
            prefix: of the server's shared-memory files.
        """
        key = secrets.token_hex(16)  # kept by nobody: nobody is meant to have it
        # explicit control would let whoever reads the key from the list of processes load code into the server; with
        # `none` and `poll` the server loads nothing that it is asked to
        control = (
            ["--model-control-mode=poll", "--repository-poll-secs=1"] if given.poll else ["--model-control-mode=none"]
        )
        return [
            str(self.binary),
            f"--model-repository={given.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            *control,
            "--exit-on-error=true",
            "--strict-readiness=true",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=5",
            f"--http-address={given.plain_host}",
            f"--http-port={given.ports.http}",
            f"--grpc-address={given.host}",
            f"--grpc-port={given.ports.grpc}",
            f"--grpc-max-connection-age={_CONNECTION_AGE_MS}",
            f"--metrics-address={LOOPBACK}",
            f"--metrics-port={given.ports.metrics}",
            f"--allow-gpu-metrics={'false' if self.stub else 'true'}",
            *(given.tls.arguments() if given.tls else []),
            *(f"--grpc-restricted-protocol={p}:mbdcnn-control={key}" for p in _RESTRICTED),
            *(f"--http-restricted-api={p}:mbdcnn-control={key}" for p in _RESTRICTED),
        ]
