"""Bring a running server to a new version of its repository without a failed request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from mbdcnn.errors import UserError
from serve._live import LiveRepository, Staged
from serve._process import ServerProcess, stubs
from serve.probe import ProbeError, request


class InterruptedUpgradeError(Exception):
    """The present server needs care first, or is to end; the new version can be tried again."""


def move(server: ServerProcess, live: LiveRepository, staged: Staged, ticks: Callable[[], Iterator[None]]) -> None:
    """Load the new version beside the old one, let clients have it, and unload the old one.

    Args:
        server: that reads `live`, in polling mode.
        live: what it serves.
        staged: a version that has answered on a server of its own.
        ticks: pauses between two looks, for as long as there is time.

    Raises:
        UserError: the server does not load it; the old version serves on.
        InterruptedUpgradeError: the server died meanwhile.
    """
    processes = stubs(server.pid)
    try:
        live.add(staged)
        _wait(ticks(), lambda: _all_ready(server, staged.steps, staged.version), lambda: server.dead() is None)
        live.move(staged)
        _wait(ticks(), lambda: _all_ready(server, staged.public, staged.version), lambda: server.code is None)
    except BaseException:
        live.retreat(staged)
        raise
    live.settle(staged)
    # every model was replaced, so every process is; clients have the new version already, so no time is too long
    with suppress(UserError, InterruptedUpgradeError):
        _wait(ticks(), lambda: not processes & stubs(server.pid), lambda: server.code is None)
    server.remember_models()


def _wait(ticks: Iterable[None], done: Callable[[], bool], well: Callable[[], bool]) -> None:
    """Wait until `done`.

    Raises:
        UserError: there was not enough time.
        InterruptedUpgradeError: it no longer goes `well`.
    """
    for _ in ticks:
        if not well():
            raise InterruptedUpgradeError
        if done():
            return
    raise UserError("The server did not load it in time; see its log.")


def _all_ready(server: ServerProcess, models: tuple[str, ...], version: int) -> bool:
    """Whether the server has loaded all these models in that version."""
    try:
        paths = [f"/v2/models/{model}/versions/{version}/ready" for model in models]
        return all(request(server.given.http_url, path, 5.0)[0] == 200 for path in paths)
    except ProbeError:
        return False


def until(end: float, stop: Callable[[float], bool | None]) -> Iterator[None]:
    """Pauses until a time or until `stop` says so.

    Args:
        end: as `time.monotonic` counts.
        stop: waits for that many seconds; true to end at once.
    """
    while time.monotonic() < end and not stop(0.2):
        yield
