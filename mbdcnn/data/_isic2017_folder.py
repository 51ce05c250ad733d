"""Which files of a folder in the ISIC-2017 layout belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mbdcnn.data import isic2017
from mbdcnn.data._check import Candidate, Listing
from mbdcnn.data._labels import read_labels
from mbdcnn.data._listing import closed, find, list_images, list_masks, relative
from mbdcnn.data.manifest import Fault


def list_isic2017(root: Path) -> Listing | None:
    """Match images, masks and labels by name; any subset of splits, masks and labels will do.

    The extra images join the split training, without masks.

    Returns:
        None when nothing of the layout is there.

    Raises:
        UserError: a CSV cannot be read or lacks a needed column.
    """
    candidates: list[Candidate] = []
    faults: list[Fault] = []
    parts = 0
    for part in isic2017.PARTS:
        found, of_part, left_out = _part(root, part)
        parts += found
        candidates += of_part
        faults += left_out
    return Listing(isic2017.LAYOUT, candidates, faults) if parts or faults else None


def _part(root: Path, part: str) -> tuple[int, list[Candidate], list[Fault]]:
    """Match the files of a split or of the extra images; also how many of its folders and files are there."""
    extra = part == isic2017.EXTRA
    images_at, faults = find(root, root, isic2017.images_folder(part))
    masks_at, wrong_masks = (None, []) if extra else find(root, root, isic2017.masks_folder(part))
    labels_at, wrong_labels = find(root, root, isic2017.labels_file(part))
    faults += wrong_masks + wrong_labels
    parts = sum(at is not None for at in (images_at, masks_at, labels_at))
    if images_at is None:
        missing = f"belongs to images that are not there: {isic2017.images_folder(part)}"
        faults += [Fault(at.name, missing) for at in (masks_at, labels_at) if at is not None]
        return parts, [], faults

    images, broken, wrong = _listed(list_images, root, images_at)
    faults += wrong
    masks: dict[str, Path] = {}
    if masks_at is not None:
        masks, _, wrong = _listed(list_masks, root, masks_at)
        faults += wrong
        for key in masks.keys() - images.keys() - broken:
            faults.append(Fault(relative(root, masks[key]), "has no image"))
    labels: dict[str, str] = {}
    if labels_at is not None and not labels_at.is_file():
        faults.append(Fault(labels_at.name, "should be a CSV file"))
    elif labels_at is not None:
        read = read_labels(labels_at, labels_at.name)
        labels = read.of
        faults += read.faults + read.without_image(images.keys() | broken)
    split = "training" if extra else part
    ordered = sorted(images.items(), key=lambda pair: pair[1].stem)
    return parts, [Candidate(split, path, masks.get(k), labels.get(k), extra) for k, path in ordered], faults


def _listed(
    lister: Callable[[Path, Path], tuple[dict[str, Path], set[str], list[Fault]]], root: Path, folder: Path
) -> tuple[dict[str, Path], set[str], list[Fault]]:
    faults = closed(root, folder)
    return ({}, set(), faults) if faults else lister(root, folder)
