"""The shared-memory files of one server: told apart from others', and removed even after everyone was killed."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/dev/shm")
_LOCK = "lock"


class SharedMemory:
    """A prefix of file names that is one server's own, held by a lock that its processes inherit.

    Process numbers do not tell owners apart where containers share the folder; a lock does, and it ends with the last
    process that holds it.

    Attributes:
        prefix: with which the server's files begin.
        lock: the file descriptor that the server inherits.
    """

    def __init__(self) -> None:
        self.prefix = f"mbdcnn_{os.getpid()}_{secrets.token_hex(4)}_"
        # locked before it has its name, so that nobody finds it unlocked
        part = _FOLDER / f".{self.prefix}{_LOCK}"
        self.lock = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        part.rename(_FOLDER / f"{self.prefix}{_LOCK}")

    def remove(self) -> None:
        """Remove the files and give the prefix up."""
        _remove(self.prefix)
        os.close(self.lock)


def remove_orphans() -> None:
    """Remove the files of servers of which no process is left; their supervisor was killed and could not."""
    for lock in _FOLDER.glob(f"mbdcnn_*_{_LOCK}"):
        with suppress(OSError), lock.open("r+b") as file:  # refused where it is another user's, or still held
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.name.removesuffix(_LOCK))


def _remove(prefix: str) -> None:
    """Remove every file that begins so, the lock last."""
    for file in sorted(_FOLDER.glob(f"{prefix}*"), key=lambda f: f.name.endswith(f"_{_LOCK}")):
        with suppress(OSError):
            file.unlink()
