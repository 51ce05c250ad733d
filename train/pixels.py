"""Which pixels a run trains on: the originals', or those of their prepared copies."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mbdcnn import runs
from mbdcnn.config import Config
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.prepared import FOLDER, Copies, find_copies
from mbdcnn.errors import UserError
from train.plan import Plan

ORIGINALS = "none"  # the word for them on the command line
RECORD = "pixels.json"


@dataclass(frozen=True)
class _Begun:
    """What a run began with: copies, or the originals where there is no folder."""

    folder: Path | None
    short_side: int | None


def choose_copies(manifest: Manifest, wanted: str | None, config: Config) -> Copies | None:
    """The copies to train on, None for the originals; says on standard error what there is to know.

    Args:
        manifest: data set, whole.
        wanted: folder of prepared copies, or `none` for the originals; None takes the folder in the data folder if it
            holds copies that fit.
        config: of the training.

    Raises:
        UserError: the copies in the folder that was named do not fit.
    """
    usual = manifest.root / FOLDER
    if wanted == ORIGINALS or (wanted is None and not usual.exists()):
        return None
    try:
        copies = find_copies(manifest, usual if wanted is None else Path(wanted))
    except UserError as error:
        if wanted is not None:
            raise
        _say(f"training on the originals: {error}")
        return None
    needed = config.preprocessing.image_size / config.augmentation.crop_min
    if wanted is None and copies.short_side < needed:
        _say(
            f"training on the originals: {usual} has a short side of {copies.short_side}, the smallest crop at "
            f"preprocessing.image_size = {config.preprocessing.image_size} wants {needed:.0f}; --prepared {usual} "
            "takes it nevertheless."
        )
        return None
    _say(f"training on the prepared copies in {copies.folder}, short side {copies.short_side}")
    return copies


def with_copies(plan: Plan, stages: Sequence[str], manifest: Manifest, wanted: str | None) -> Plan:
    """The plan on the pixels that its run began with; a run that has not begun takes what `choose_copies` says.

    Raises:
        UserError: the run began with other pixels than those that are wanted, or with copies that are gone.
    """
    if not plan.pending(stages):
        return plan
    begun = _begun(plan.run)
    if begun is None:
        return replace(plan, copies=choose_copies(manifest, wanted, plan.config))
    if begun.folder is None:
        if wanted not in (None, ORIGINALS):
            raise UserError(f"{plan.run} began with the originals; leave out --prepared, or use another --run.")
        if wanted is None and (manifest.root / FOLDER).exists():
            _say(f"training on the originals, with which {plan.run} began")
        return plan
    if wanted == ORIGINALS:
        raise UserError(
            f"{plan.run} began with prepared copies; leave out --prepared {ORIGINALS}, or use another --run."
        )
    return replace(plan, copies=_same_copies(plan.run, begun.folder, begun.short_side, manifest, wanted))


def record_pixels(plan: Plan) -> None:
    """Note what a run trains on, for the calls that go on with it."""
    copies = plan.copies
    folder = None if copies is None else str(copies.folder.resolve())
    runs.write_json(plan.run / RECORD, {"prepared": folder, "short_side": copies and copies.short_side})


def _begun(run: Path) -> _Begun | None:
    file = run / RECORD
    if not file.is_file():  # runs had no such note before there were copies
        return _Begun(None, None) if (run / runs.MANIFEST).is_file() else None
    try:
        noted = json.loads(file.read_text())
        folder = noted["prepared"]
        return _Begun(None, None) if folder is None else _Begun(Path(folder), int(noted["short_side"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} is damaged; use another --run.") from None


def _same_copies(run: Path, folder: Path, short_side: int | None, manifest: Manifest, wanted: str | None) -> Copies:
    """The copies that a run began with, wherever they lie now."""
    begun = f"{run} began with prepared copies of short side {short_side}"
    mend = f"`mbdcnn data prepare {manifest.root} --out {folder} --short-side {short_side}` makes them again"
    places = [Path(wanted)] if wanted else [folder, manifest.root / FOLDER]
    for place in places:
        try:
            copies = find_copies(manifest, place)
        except UserError:
            continue
        if copies.short_side == short_side:
            _say(f"training on the prepared copies in {copies.folder}, short side {short_side}")
            return copies
    raise UserError(f"{begun}, and there are none such in {' or '.join(map(str, places))}; {mend}.")


def _say(sentence: str) -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        print(sentence, file=sys.stderr)
