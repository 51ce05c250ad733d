"""A server to ask for as long as one call takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mbdcnn.errors import UserError
from serve._ports import LOOPBACK, Ports
from serve.released import RELEASED
from serve.server import TritonServer

HERE = f"{LOOPBACK}:{Ports().grpc}"  # where `mbdcnn serve` listens
_A_MOMENT_S = 1.0  # for another program on this machine to accept a connection


@contextmanager
def server_for(url: str | None, repository: Path | None, wait: float, say: Callable[[str], None]) -> Iterator[str]:
    """A server to ask: the one that is named, one that runs here already, or one of its own for as long as it is asked.

    Args:
        url: `HOST:PORT` of a server; None for this machine's.
        repository: to serve meanwhile, whatever runs here; None for the released networks, where nothing runs.
        wait: seconds that the caller is ready to wait for a server; above 0 none is started.
        say: told when one is started.

    Yields:
        The server's gRPC address.

    Raises:
        UserError: both `url` and `repository`, or the server cannot be started.
    """
    if url is not None and repository is not None:
        raise UserError("--url asks a server that runs and --repository starts one; leave one of them out.")
    if repository is None and (url is not None or wait > 0 or _listens(Ports().grpc)):
        yield url or HERE
        return
    say("Starting a server for this call; `mbdcnn serve` keeps one ...")
    with TritonServer(repository or RELEASED) as server:
        yield server.grpc_url


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), _A_MOMENT_S).close()
    except OSError:
        return False
    return True
