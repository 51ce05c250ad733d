"""Synthetic dermoscopy sets in the layouts of ISIC-2017 and PH2, so that everything works without a download."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mbdcnn.classes import CLASSES, SPLITS
from mbdcnn.data import isic2017, ph2
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
# Extra images are training images, PH2's are test images, both from a position that their split never reaches.
_BEYOND = 300_000


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
    extra: int = 0,
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
        extra: further training images that have a label only, in a folder of their own.

    Raises:
        UserError: the folder holds something else, or a count, size or seed is out of range.
    """
    wanted = _checked({isic2017.EXTRA: extra, **(DEFAULT_COUNTS if counts is None else counts)}, size, seed)
    settings = {"style": _STYLE, "counts": wanted, "size": size, "seed": seed}
    before = _marker(out)
    if before == {**settings, "complete": True} and all(_filled(out / name) for name in _names(wanted)):
        return
    held = before["counts"] if before else {}
    _refuse_strangers(out, held)
    try:
        # Until all is complete the marker names whatever may be here of ours, so a later call can mend it.
        both = {part: max(held.get(part, 0), wanted.get(part, 0)) for part in isic2017.PARTS}
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
        raise _unwritable(out, error) from None


def write_ph2_sample(folder: Path, images: int = 30, seed: int = 2017, size: int = 400) -> None:
    """Write a synthetic set in the PH2 layout: bitmaps and a workbook, half nevi and half melanomas.

    Args:
        folder: to make PH2Dataset in; must not hold one.
        images: how many.
        seed: of the drawing; no image is also in the set that `write_sample` draws.
        size: width of the largest images in pixels, 100 to 4000.

    Raises:
        UserError: the folder holds such a set or cannot be written, or a number is out of range.
    """
    import openpyxl  # slow to import

    _checked({"test": images}, size, seed)
    base = folder / ph2.BASE
    places = range(_BEYOND, _BEYOND + 2 * images)
    drawn = [place for place in places if label_of("test", place, seed) in ph2.LABELS][:images]
    ids = {place: f"IMD{number:03d}" for number, place in enumerate(drawn, 1)}

    def one(place: int) -> None:
        picture, mask = draw("test", place, size, seed)
        case, image_id = base / ph2.IMAGES / ids[place], ids[place]
        for kept, image, name in (
            (ph2.image_folder(image_id), Image.fromarray(picture), ph2.image_name(image_id)),
            (ph2.lesion_folder(image_id), Image.fromarray(mask), ph2.lesion_name(image_id)),
        ):
            (case / kept).mkdir(parents=True)
            image.save(case / kept / name)

    try:
        if base.exists():
            raise UserError(f"{base} is there already: name another folder for the sample set.")
        (base / ph2.IMAGES).mkdir(parents=True)
        for _ in in_threads(one, drawn, "draw", progress=False):
            pass
        book = openpyxl.Workbook()
        legend = ["X marks the diagnosis"]  # the original begins with one, too
        for row in (legend, [], [ph2.NAME_COLUMN, "Histological Diagnosis", *ph2.DIAGNOSES]):
            book.active.append(row)
        for place, image_id in ids.items():
            kinds = [kind for kind, label in ph2.DIAGNOSES.items() if label == label_of("test", place, seed)]
            mine = kinds[place // len(CLASSES) % len(kinds)]
            book.active.append([image_id, None, *("X" if kind == mine else None for kind in ph2.DIAGNOSES)])
        book.save(base / ph2.WORKBOOK)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    why = error.strerror or "unknown cause"
    return UserError(f"{folder} cannot be written ({why}): name a folder with space and permission.")


def _checked(wanted: dict[str, int], size: int, seed: int) -> dict[str, int]:
    for part, count in wanted.items():
        if part not in isic2017.PARTS:
            raise UserError(f"there is no split {part!r}: use {', '.join(SPLITS)}.")
        if not 0 <= count <= _MOST:
            raise UserError(f"a sample cannot hold {count} {part} images: ask for 0 to {_MOST}.")
    if not any(wanted.values()):
        raise UserError("a sample without images is of no use: ask for at least one.")
    if not 100 <= size <= 4000:
        raise UserError(f"a sample's image width cannot be {size}: use 100 to 4000 pixels.")
    if seed < 0:
        raise UserError(f"a seed cannot be {seed}: use 0 or more.")
    return {part: wanted[part] for part in isic2017.PARTS if wanted.get(part)}


def _names(counts: dict[str, int]) -> list[str]:
    """Every file of a set, relative to its folder."""
    names = []
    for part, count in counts.items():
        for number in range(count):
            image_id = _id(*_place(part, number))
            names.append(f"{isic2017.images_folder(part)}/{image_id}.jpg")
            if part != isic2017.EXTRA:
                names.append(f"{isic2017.masks_folder(part)}/{isic2017.mask_name(image_id)}")
        if count:
            names.append(isic2017.labels_file(part))
    return names


def _place(part: str, number: int) -> tuple[str, int]:
    """The split and position that an image of a part is drawn for."""
    return ("training", _BEYOND + number) if part == isic2017.EXTRA else (part, number)


def _id(split: str, position: int) -> str:
    return f"ISIC_{_FIRST_ID[split] + position:07d}"


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _marker(out: Path) -> dict[str, Any] | None:
    """What the folder's marker says; None for a folder without a readable one."""
    try:
        marker = json.loads((out / MARKER).read_text())
        sound = all(part in isic2017.PARTS and int(count) <= _MOST for part, count in marker["counts"].items())
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
    return [path for part in isic2017.PARTS for kind in kinds if (path := out / kind(part)).exists()]


def _remove(out: Path) -> None:
    for entry in _parts(out):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _draw_all(stage: Path, counts: dict[str, int], size: int, seed: int, progress: bool) -> None:
    for part, count in counts.items():
        (stage / isic2017.images_folder(part)).mkdir(parents=True)
        if part != isic2017.EXTRA:
            (stage / isic2017.masks_folder(part)).mkdir()
        with (stage / isic2017.labels_file(part)).open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(isic2017.COLUMNS)
            for number in range(count):
                place = _place(part, number)
                label = label_of(*place, seed)
                marks = [float(label == column) for column in isic2017.COLUMNS[1:]]
                rows.writerow([_id(*place), *marks])

    def one(row: tuple[str, int]) -> None:
        part, place = row[0], _place(*row)
        picture, mask = draw(*place, size, seed)
        image_id = _id(*place)
        Image.fromarray(picture).save(stage / isic2017.images_folder(part) / f"{image_id}.jpg", quality=92)
        if part != isic2017.EXTRA:
            mask_path = stage / isic2017.masks_folder(part) / isic2017.mask_name(image_id)
            Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)

    everything = [(part, number) for part, count in counts.items() for number in range(count)]
    for _ in in_threads(one, everything, "draw", progress):
        pass
