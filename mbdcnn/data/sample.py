"""A synthetic dermoscopy set in the ISIC-2017 layout, so that everything works without a download."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mbdcnn.classes import CLASSES, SPLITS
from mbdcnn.data import isic2017
from mbdcnn.data._lesion import DRAW
from mbdcnn.data._nuisance import add_nuisance
from mbdcnn.data._skin import draw_skin, light
from mbdcnn.data._threads import in_threads
from mbdcnn.errors import UserError

DEFAULT_COUNTS = {"training": 240, "validation": 60, "test": 60}
MARKER = ".mbdcnn-sample.json"
_PART = MARKER + ".part"
_STAGE = ".mbdcnn-sample.unfinished"
_STYLE = 1  # raise when the drawing changes, so that older folders are drawn anew
_FIRST_ID = {"training": 0, "validation": 1_000_000, "test": 2_000_000}
_MOST = 100_000


def label_of(split: str, position: int, seed: int = 2017) -> str:
    """The class of an image: each run of three holds every class once, in a seeded order."""
    block, place = divmod(position, len(CLASSES))
    order = np.random.default_rng([seed, SPLITS.index(split), block, 1]).permutation(len(CLASSES))
    return CLASSES[order[place]]


def draw(split: str, position: int, size: int = 400, seed: int = 2017) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image, the same whatever else is drawn.

    Args:
        split: `training`, `validation` or `test`.
        position: in its split, from 0.
        size: width of the largest images in pixels; an image has 75 to 100 % of it, at 4:3.
        seed: of the whole set.

    Returns:
        The image `(H, W, 3)` uint8 RGB and the lesion mask `(H, W)` bool.
    """
    key = [seed, SPLITS.index(split), position]
    # Separate streams: what lies over the lesion cannot depend on the lesion.
    scene, lesion, over = (np.random.default_rng([*key, stream]) for stream in (2, 3, 4))
    unit = max(size // 100, 1) * 4
    width = unit * int(scene.integers(19, 26))
    picture = draw_skin(scene, (width * 3 // 4, width))
    picture, mask = DRAW[label_of(split, position, seed)](lesion, picture)
    picture = add_nuisance(over, np.clip(light(scene, picture), 0, 1))
    picture = picture + scene.normal(0, scene.uniform(0.004, 0.014), picture.shape)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), mask


def write_sample(
    out: Path,
    counts: dict[str, int] | None = None,
    size: int = 400,
    seed: int = 2017,
    progress: bool = False,
) -> None:
    """Write a synthetic set in the ISIC-2017 layout.

    Nothing is in place until everything is drawn; what an interrupted call leaves is redone by the next. A
    call on a complete set of the same settings returns at once; one of other settings is replaced.

    Args:
        out: folder to write, made when missing.
        counts: images per split; splits that are left out or 0 are not written. Default: 240 / 60 / 60.
        size: width of the largest images in pixels, 100 to 4000; sizes vary from 75 % of it.
        seed: of the drawing; image i of a split does not depend on the counts.
        progress: show a bar on standard error.

    Raises:
        UserError: the folder holds something else, or a count, size or seed is out of range.
    """
    wanted = _checked(counts, size, seed)
    settings = {"style": _STYLE, "counts": wanted, "size": size, "seed": seed}
    before = _marker(out)
    if before == {**settings, "complete": True} and all(_filled(out / name) for name in _names(wanted)):
        return
    held = before["counts"] if before else {}
    _refuse_strangers(out, held)
    try:
        # Until all is complete the marker names whatever may be here of ours, so a later call can mend it.
        both = {split: max(held.get(split, 0), wanted.get(split, 0)) for split in SPLITS}
        out.mkdir(parents=True, exist_ok=True)
        _write_marker(out, {**settings, "counts": both, "complete": False})
        stage = out / _STAGE
        if stage.exists():
            shutil.rmtree(stage)
        _draw_all(stage, wanted, size, seed, progress)
        _remove(out)
        for entry in sorted(stage.iterdir()):
            entry.rename(out / entry.name)
        stage.rmdir()
        _write_marker(out, {**settings, "complete": True})
    except OSError as error:
        why = error.strerror or "unknown cause"
        raise UserError(f"{out} cannot be written ({why}): name a folder with space and permission.") from None


def _checked(counts: dict[str, int] | None, size: int, seed: int) -> dict[str, int]:
    wanted = DEFAULT_COUNTS if counts is None else counts
    for split, count in wanted.items():
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r}: use {', '.join(SPLITS)}.")
        if not 0 <= count <= _MOST:
            raise UserError(f"a sample cannot hold {count} {split} images: ask for 0 to {_MOST}.")
    if not any(wanted.values()):
        raise UserError("a sample without images is of no use: ask for at least one.")
    if not 100 <= size <= 4000:
        raise UserError(f"a sample's image width cannot be {size}: use 100 to 4000 pixels.")
    if seed < 0:
        raise UserError(f"a seed cannot be {seed}: use 0 or more.")
    return {split: wanted[split] for split in SPLITS if wanted.get(split)}


def _names(counts: dict[str, int]) -> list[str]:
    """Every file of a set, relative to its folder."""
    names = []
    for split, count in counts.items():
        for position in range(count):
            image_id = _id(split, position)
            names.append(f"{isic2017.images_folder(split)}/{image_id}.jpg")
            names.append(f"{isic2017.masks_folder(split)}/{isic2017.mask_name(image_id)}")
        if count:
            names.append(isic2017.labels_file(split))
    return names


def _id(split: str, position: int) -> str:
    return f"ISIC_{_FIRST_ID[split] + position:07d}"


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _marker(out: Path) -> dict[str, Any] | None:
    """What the folder's marker says; None for a folder without a readable one."""
    try:
        marker = json.loads((out / MARKER).read_text())
        sound = all(split in SPLITS and int(count) <= _MOST for split, count in marker["counts"].items())
        return marker if sound else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_marker(out: Path, marker: dict[str, Any]) -> None:
    part = out / _PART
    part.write_text(json.dumps(marker) + "\n")
    part.replace(out / MARKER)


def _refuse_strangers(out: Path, held: dict[str, int]) -> None:
    """Make sure that drawing anew would delete nothing but what an earlier call drew."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a new or empty folder for the sample set.")
    if not (out / MARKER).exists():
        if any(path.name != _PART for path in out.iterdir()):
            raise UserError(f"{out} holds other files: name a new or empty folder for the sample set.")
        return
    ours = set(_names(held))
    for entry in _parts(out):
        for path in entry.iterdir() if entry.is_dir() else [entry]:
            name = str(path.relative_to(out))
            if name not in ours:
                mend = "move it or name an empty folder"
                raise UserError(f"{out} holds {name}, which is not of the sample set: {mend}.")


def _parts(out: Path) -> list[Path]:
    """The folders and CSV files of the layout that are there."""
    kinds = (isic2017.images_folder, isic2017.masks_folder, isic2017.labels_file)
    return [path for split in SPLITS for kind in kinds if (path := out / kind(split)).exists()]


def _remove(out: Path) -> None:
    for entry in _parts(out):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _draw_all(stage: Path, counts: dict[str, int], size: int, seed: int, progress: bool) -> None:
    for split, count in counts.items():
        (stage / isic2017.images_folder(split)).mkdir(parents=True)
        (stage / isic2017.masks_folder(split)).mkdir()
        with (stage / isic2017.labels_file(split)).open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(isic2017.COLUMNS)
            for position in range(count):
                label = label_of(split, position, seed)
                marks = [float(label == column) for column in isic2017.COLUMNS[1:]]
                rows.writerow([_id(split, position), *marks])

    def one(place: tuple[str, int]) -> None:
        split, position = place
        picture, mask = draw(split, position, size, seed)
        image_id = _id(split, position)
        image_path = stage / isic2017.images_folder(split) / f"{image_id}.jpg"
        Image.fromarray(picture).save(image_path, quality=92)
        mask_path = stage / isic2017.masks_folder(split) / isic2017.mask_name(image_id)
        Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)

    places = [(split, position) for split, count in counts.items() for position in range(count)]
    for _ in in_threads(one, places, "draw", progress):
        pass
