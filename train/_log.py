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


def forget_after(log: Path, epoch: int, step: int) -> None:
    """Drop the lines of what no checkpoint holds, which is trained again.

    Args:
        log: need not exist.
        epoch: whole epochs that the checkpoint holds.
        step: steps that it holds, over all epochs.
    """
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if _is_held(line, epoch, step)]
        if kept != lines:
            with replacing(log) as part:
                part.write_text("".join(kept), encoding="utf-8")


def _is_held(line: str, epoch: int, step: int) -> bool:
    """Whether a checkpoint holds what a line tells; not where a kill or a full disk cut the line short."""
    try:
        row = json.loads(line)
        return bool(row["step"] <= step if "step" in row else row["epoch"] <= epoch) and line.endswith("\n")
    except (ValueError, KeyError, TypeError):
        return False
