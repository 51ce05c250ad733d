"""A run's status as people read it."""

from __future__ import annotations

from mbdcnn.status import FINISHED, IN_PROGRESS, NOT_BEGUN, RunStatus, StageStatus

_HEADS = ("stage", "state", "best", "spent", "left")
_SILENCE = (
    300.0  # seconds after which the table says that nothing is heard of the trainer: longer than most validations
)


def status_table(status: RunStatus) -> str:
    """The data, a line per stage, and what comes next."""
    rows = [_HEADS, *(_row(stage) for stage in status.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    known = sum(stage.seconds_left or 0.0 for stage in status.stages)
    left = f", at most {duration(known)} left" if known else ""
    if status.seconds_left is None:
        left = f", {f'at least {duration(known)}' if known else 'an unknown time'} left"
    total = f"{duration(status.seconds)} spent{left}"
    return "\n".join(
        [f"{status.run}, preset {status.preset}; {_data(status)}", "", *lines, "", total, f"next: {status.next}"]
    )


def duration(seconds: float) -> str:
    """Such as `48 s`, `12 min` or `3 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _data(status: RunStatus) -> str:
    if status.data is None:
        return "no fingerprint of its data"
    pairs = status.data["leakage"]
    leakage = f"LEAKAGE: {pairs} pair{'s' * (pairs > 1)} of images in two splits" if pairs else "no leakage found"
    return f"data {status.data['name']} ({status.data['fingerprint'][:12]}), {leakage}"


def _row(stage: StageStatus) -> tuple[str, ...]:
    best = "" if stage.best is None else f"{stage.score} {stage.best:.4f}, epoch {stage.best_epoch}"
    spent = duration(stage.seconds) if stage.seconds else ""
    left = "" if stage.state == FINISHED else "?" if stage.seconds_left is None else duration(stage.seconds_left)
    return stage.name, _state(stage), best, spent, left


def _state(stage: StageStatus) -> str:
    if stage.state == NOT_BEGUN:
        return stage.state
    if stage.state == FINISHED:
        return f"{stage.state} after {stage.epoch} epoch{'s' * (stage.epoch != 1)}"
    per_epoch = stage.steps_per_epoch
    step = f", step {stage.step - stage.epoch * per_epoch}/{per_epoch}" if per_epoch else ""
    where = f"epoch {stage.epoch + 1}/{stage.epochs}{step}"
    if stage.epoch >= stage.epochs:
        where = f"the end, after {stage.epochs} epoch{'s' * (stage.epochs != 1)}"
    if stage.state != IN_PROGRESS:
        return f"{stage.state} in {where}"
    speed = f", {stage.images_per_second:.3g} images/s" if stage.images_per_second else ""
    silent = stage.silent_seconds or 0.0
    return where + (f", silent for {duration(silent)}" if silent > _SILENCE else speed)
