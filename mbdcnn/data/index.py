"""Read a data folder of the ISIC-2017 layout into a manifest, opening every file once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from mbdcnn.classes import CLASSES, SPLITS
from mbdcnn.data import isic2017
from mbdcnn.data._labels import read_labels
from mbdcnn.data._listing import find, list_images, list_masks, relative
from mbdcnn.data._threads import in_threads
from mbdcnn.data.manifest import Fault, Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import ImageError, decode_image, decode_mask

T = TypeVar("T")


@dataclass(frozen=True)
class _Candidate:
    """An image whose name fits, with what is said to belong to it."""

    split: str
    image: Path
    mask: Path | None
    label: str | None


def index_folder(root: Path, progress: bool = False) -> Manifest:
    """Read a folder of the ISIC-2017 layout; any subset of splits, masks and labels will do.

    Every image and mask is decoded once, so that nothing can fail half-way through a training. What cannot
    be used is listed with its reason: an image without a usable mask counts for classification only, one
    without a usable label for segmentation only.

    Args:
        root: the data folder.
        progress: show a bar on standard error.

    Returns:
        The usable images, ordered by split (training, validation, test), then image id; and the faults.

    Raises:
        UserError: no such folder, nothing of the layout or nothing usable in it, or a CSV without a needed
            column.
    """
    try:
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"{root} {what}: name a folder that holds {isic2017.LAYOUT}.")
        candidates: list[_Candidate] = []
        faults: list[Fault] = []
        parts = 0
        for split in SPLITS:
            found, of_split, left_out = _split(root, split)
            parts += found
            candidates += of_split
            faults += left_out
    except OSError as error:
        path = error.filename or root
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable.") from None
    if not parts and not faults:
        raise UserError(f"{root} holds nothing of the ISIC-2017 layout: it needs {isic2017.LAYOUT}.")

    items: list[Item] = []
    for item, wrong in in_threads(lambda candidate: _check(root, candidate), candidates, "index", progress):
        faults += wrong
        if item is not None:
            items.append(item)
    if not items:
        example = f", for example {faults[0].path}, which {faults[0].reason}" if faults else ""
        raise UserError(f"{root} holds no usable image ({len(faults)} faults{example}): it needs {isic2017.LAYOUT}.")
    return Manifest(root, tuple(items), tuple(sorted(faults, key=_fault_order)))


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Count what a manifest holds.

    Returns:
        `{"root", "fingerprint", "images", "faults", "in_several_splits", "splits"}`; `splits` maps each split
        to `{"images", "masks", "labels", "classes": {class: count}}`, `faults` lists `{"path", "reason"}`, and
        `in_several_splits` counts the pictures that more than one split holds byte for byte: leakage, which makes
        scores too good.
    """
    splits = {}
    where: dict[str, set[str]] = {}
    for item in manifest.items:
        where.setdefault(item.sha256, set()).add(item.split)
    for split in SPLITS:
        labels = [item.label for item in manifest.select(split, labels=True)]
        splits[split] = {
            "images": len(manifest.select(split)),
            "masks": len(manifest.select(split, masks=True)),
            "labels": len(labels),
            "classes": {name: labels.count(name) for name in CLASSES},
        }
    return {
        "root": str(manifest.root),
        "fingerprint": manifest.fingerprint,
        "images": len(manifest.items),
        "faults": [asdict(fault) for fault in manifest.faults],
        "in_several_splits": sum(len(held) > 1 for held in where.values()),
        "splits": splits,
    }


def _fault_order(fault: Fault) -> tuple[int, str, str]:
    top = fault.path.split("/")[0].lower()
    prefixes = [f"isic-2017_{isic2017.PARTS[split]}_".lower() for split in SPLITS]
    split = next((n for n, prefix in enumerate(prefixes) if top.startswith(prefix)), len(prefixes))
    return split, fault.path, fault.reason


def _split(root: Path, split: str) -> tuple[int, list[_Candidate], list[Fault]]:
    """Match a split's images, masks and labels by name; also how many of the three parts are there."""
    images_at, faults = find(root, isic2017.images_folder(split))
    masks_at, wrong_masks = find(root, isic2017.masks_folder(split))
    labels_at, wrong_labels = find(root, isic2017.labels_file(split))
    faults += wrong_masks + wrong_labels
    parts = sum(part is not None for part in (images_at, masks_at, labels_at))
    if images_at is None:
        missing = f"belongs to images that are not there: {isic2017.images_folder(split)}"
        faults += [Fault(part.name, missing) for part in (masks_at, labels_at) if part is not None]
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
        labels, lines, wrong = read_labels(labels_at, labels_at.name)
        faults += wrong
        for key in lines.keys() - images.keys() - broken:
            reason = f"line {lines[key]} ({key.upper()}) names an image that is not there"
            faults.append(Fault(labels_at.name, reason))
    ordered = sorted(images.items(), key=lambda pair: pair[1].stem)
    return parts, [_Candidate(split, path, masks.get(k), labels.get(k)) for k, path in ordered], faults


def _listed(
    lister: Callable[[Path, Path], tuple[dict[str, Path], set[str], list[Fault]]], root: Path, folder: Path
) -> tuple[dict[str, Path], set[str], list[Fault]]:
    if not folder.is_dir():
        return {}, set(), [Fault(folder.name, "should be a folder")]
    if not os.access(folder, os.R_OK | os.X_OK):
        return {}, set(), [Fault(folder.name, "cannot be read; make it readable")]
    return lister(root, folder)


def _check(root: Path, candidate: _Candidate) -> tuple[Item | None, list[Fault]]:
    """Decode an image and its mask."""
    image, faults = _decoded(root, candidate.image, lambda data: decode_image(data).shape[:2])
    if image is None:
        return None, faults
    (height, width), sha256 = image
    mask_path = mask_sha256 = None
    if candidate.mask is not None:
        mask, wrong = _decoded(root, candidate.mask, lambda data: decode_mask(data).shape)
        faults += wrong
        if mask is not None and mask[0] != (height, width):
            size = f"is {mask[0][1]} x {mask[0][0]} pixels but its image is {width} x {height}"
            faults.append(Fault(relative(root, candidate.mask), size))
        elif mask is not None:
            mask_path, mask_sha256 = relative(root, candidate.mask), mask[1]
    path = relative(root, candidate.image)
    if mask_path is None and candidate.label is None:
        return None, [*faults, Fault(path, "has neither a usable mask nor a usable label")]
    item = Item(
        image_id=candidate.image.stem,
        split=candidate.split,
        image=path,
        mask=mask_path,
        label=candidate.label,
        width=width,
        height=height,
        sha256=sha256,
        mask_sha256=mask_sha256,
    )
    return item, faults


def _decoded(root: Path, path: Path, decode: Callable[[bytes], T]) -> tuple[tuple[T, str] | None, list[Fault]]:
    """What `decode` makes of a file, and the SHA-256 of its bytes; or the fault."""
    try:
        data = path.read_bytes()
        return (decode(data), hashlib.sha256(data).hexdigest()), []
    except OSError as error:
        return None, [Fault(relative(root, path), f"cannot be read ({error.strerror})")]
    except ImageError as error:
        return None, [Fault(relative(root, path), f"cannot be used: {error}")]
