"""Several machines must train in one run folder: each reads what the first process writes."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from mbdcnn.errors import UserError
from train.processes import Process

_MARK = ".shared"
_PATIENCE_S = 10.0  # for which a machine's memory of a network folder may be out of date


def require_same_folder(run: Path, process: Process) -> None:
    """Make sure that every process sees the first one's run folder, which is there; all processes call it.

    Raises:
        UserError: one of them sees another folder, and would train something else.
    """
    if process.world == 1:
        return
    folder, word = process.gather([str(run.absolute()), secrets.token_hex(8)] if process.is_first else [])
    if process.is_first:
        (run / _MARK).write_text(word)
    process.barrier()
    blind = process.gather([] if _sees(run / _MARK, word) else [process.rank])
    if process.is_first:
        (run / _MARK).unlink()
    if blind:
        raise UserError(
            f"Process {blind[0]} does not see what process 0 writes to {folder}; name a --run on storage that "
            "all machines share, by a path that is the same on all."
        )


def _sees(mark: Path, word: str) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not (mark.is_file() and mark.read_text() == word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
