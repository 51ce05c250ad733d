"""Which ports a server listens on."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from mbdcnn.errors import UserError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """Where the server listens; 0 asks for any free port."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


def reach(host: str) -> str:
    """The address under which this machine reaches a server that listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host


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
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"Port {port} on {host} is taken; free it or choose another with --{name}-port.") from None
        raise UserError(f"{host} is not an address of this machine; change --host.") from None
    return s
