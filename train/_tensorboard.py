"""Event files for TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar


class EventFile:
    """Scalars and pictures of a stage, on one axis: steps of the optimizer.

    Writes at once, on the thread that calls. Torch's SummaryWriter has a thread of its own, which answers a full disk
    with a traceback, and names its file after the host.
    """

    def __init__(self, folder: Path, done: int) -> None:
        """Begin a file.

        Args:
            folder: of the stage's event files, made when missing.
            done: steps that a checkpoint holds; TensorBoard forgets what earlier files tell of later ones.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names
        name = f"events.out.tfevents.{time.time_ns():020d}.mbdcnn.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=done + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, rows: Sequence[Mapping[str, float]], group: str) -> None:
        """Add numbers; each row says its `step`, and each other field of it becomes a curve `group/field`."""
        for row in rows:
            values = [scalar(f"{group}/{name}", value).value[0] for name, value in row.items() if name != "step"]
            self._write(Event(wall_time=time.time(), step=int(row["step"]), summary=Summary(value=values)))
        self._writer.flush()

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, `(H, W, 3)` uint8 RGB."""
        self._write(Event(wall_time=time.time(), step=step, summary=image(name, picture, dataformats="HWC")))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
