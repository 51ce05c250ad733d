"""Files that appear whole or not at all, and folders that one process at a time writes to."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mbdcnn.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write beside `path`; it takes that name when the block ends well.

    A reader sees the old file or the new one, never half of one.

    Raises:
        OSError: with the file's name, also where a full disk refused what was written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with naming(part):
            yield part
            part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)  # what a full disk still took is room for others
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the operating system the name of the file that is written; writing alone does not say it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def locked(out: Path, option: str = "--out", patience: float = 0.0) -> Iterator[None]:
    """Keep a second process from writing to the same folder, made when missing, at the same time.

    Args:
        out: the folder.
        option: of the command that names it.
        patience: for how long to wait for the folder, in seconds.

    Raises:
        UserError: another process holds the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (out / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
            raise UserError(f"Another process is at work in {out}; wait for it, or name another {option}.")
        yield
