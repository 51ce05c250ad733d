"""Files that appear whole or not at all, and folders that one process at a time writes to."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbdcnn.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write beside `path`; it takes that name when the block ends well.

    A reader sees the old file or the new one, never half of one.
    """
    part = path.with_name(path.name + ".part")
    yield part
    part.replace(path)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a second process from writing to the same folder, made when missing, at the same time.

    Raises:
        UserError: another process holds the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another process is at work in {out}; wait for it, or name another --out.") from None
        yield
