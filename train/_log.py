"""A stage's log: a JSON line per step, and one per epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from mbdcnn.errors import UserError
from mbdcnn.files import replacing


def append(log: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Add lines to a log.

    Raises:
        UserError: the operating system refuses, as where the disk is full.
    """
    try:
        with log.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise UserError(
            f"{log} cannot be written ({error.strerror}); mend its permissions or space, and the same command goes on."
        ) from None


def forget_after(log: Path, epoch: int) -> None:
    """Drop the lines of epochs that no checkpoint holds, which are trained again.

    Args:
        log: need not exist.
        epoch: whole epochs that the checkpoint holds.
    """
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and _epoch_of(line) <= epoch]
        if kept != lines:
            with replacing(log) as part:
                part.write_text("".join(kept), encoding="utf-8")


def _epoch_of(line: str) -> float:
    """A log line's epoch; infinite for a line that a kill or a full disk cut short."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
