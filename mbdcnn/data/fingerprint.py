"""A data set's fingerprint: what is in it, how it looks, what it holds twice, as one document that goes with a run."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mbdcnn import __version__
from mbdcnn.classes import SPLITS
from mbdcnn.data._alike import find_alike, opposite
from mbdcnn.data._glance import Glance, survey
from mbdcnn.data.leakage import SAME_LESION, Pair, leakage_warning, same
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.files import replacing
from mbdcnn.layout import FINGERPRINT
from mbdcnn.page import count, words

_FORMAT = 2  # raise when the document says other things or pictures are compared otherwise: older ones are made anew
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BINS = 20


def fingerprint_of(manifest: Manifest, files: Sequence[Path], progress: bool = False) -> dict[str, Any]:
    """The data set's fingerprint: read from the first file that holds it, else made, which opens every image.

    Raises:
        UserError: an image was changed since it was indexed.
    """
    for file in files:
        document = _read(file)
        if document is not None and _fits(document, manifest):
            return document
    return describe(manifest, survey(manifest, progress), progress)


def keep(manifest: Manifest, file: Path, others: Sequence[Path] = (), progress: bool = False) -> dict[str, Any]:
    """Make sure that a file holds the data set's fingerprint.

    Args:
        manifest: index of the data set.
        file: left alone where it holds it already.
        others: files to take it from, before that of `mbdcnn data check` in the data folder.
        progress: show a bar on standard error.

    Returns:
        The fingerprint.
    """
    document = fingerprint_of(manifest, [file, *others, manifest.root / FINGERPRINT], progress)
    if _read(file) != document:
        file.parent.mkdir(parents=True, exist_ok=True)
        save(document, file)
    return document


def warn_of_leakage(manifest: Manifest, file: Path) -> None:
    """Keep the fingerprint in a file, and say on standard error what leaks between the splits."""
    if leaks := keep(manifest, file, progress=sys.stderr.isatty())["leakage"]:
        print(leakage_warning(leaks, str(file)), file=sys.stderr)


def describe(manifest: Manifest, glances: Sequence[Glance], progress: bool = False) -> dict[str, Any]:
    """Put together what is known of a data set.

    Args:
        manifest: its index.
        glances: of its images, in the same order.
        progress: show a bar on standard error.

    Returns:
        `{"format", "mbdcnn", "name", "fingerprint", "images", "classes", "splits", "pairs", "leakage",
        "label_conflicts", "faults", "warnings"}`. `splits` maps each split to its counts, sizes in pixels, lesion areas
        as shares of the image, and RGB mean and deviation in [0, 1], an image counting as much as any other: what
        `preprocessing.mean` and `preprocessing.std` take. `pairs` are the images that show the same; those in different
        splits are in `leakage` too, those of different labels in `label_conflicts`.
    """
    pairs = _pairs(manifest.items, glances, progress)
    held = {item.label for item in manifest.items} - {None}
    classes = [name for name in manifest.classes if name in held]
    document = {
        "format": _FORMAT,
        "mbdcnn": __version__,
        "name": manifest.root.resolve().name,
        "fingerprint": manifest.fingerprint,
        "images": len(manifest.items),
        "classes": classes,
        "splits": {split: _split(split, manifest.items, glances, classes) for split in SPLITS},
        "pairs": [pair.document() for pair in pairs],
        "leakage": [pair.document() for pair in pairs if pair.leaks],
        "label_conflicts": [pair.document() for pair in pairs if pair.conflicts],
        "faults": _faults(manifest),
    }
    return document | {"warnings": _warnings(document)}


def save(document: dict[str, Any], path: Path) -> None:
    """Write a fingerprint, atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=2) + "\n")


def _read(file: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _fits(document: dict[str, Any], manifest: Manifest) -> bool:
    said = [document.get(key) for key in ("format", "name", "fingerprint", "faults")]
    return said == [_FORMAT, manifest.root.resolve().name, manifest.fingerprint, _faults(manifest)]


def _faults(manifest: Manifest) -> list[dict[str, str]]:
    return [asdict(fault) for fault in manifest.faults]


def _pairs(items: Sequence[Item], glances: Sequence[Glance], progress: bool) -> list[Pair]:
    """The images that show the same: by bytes, by pixels, by their small structures; the closest first."""
    pixels = {id(item): glance.pixels for item, glance in zip(items, glances, strict=True)}
    # Each picture is compared once; of its copies those are named that are in different splits, if there are any.
    copies: dict[str, list[Item]] = {}
    for item in items:
        copies.setdefault(pixels[id(item)], []).append(item)
    shown = {glance.pixels: glance.thumbnail for glance in glances}
    keys = list(copies)
    near = []
    for alike in find_alike(np.stack([shown[key] for key in keys]), progress):
        ones, others = copies[keys[alike.first]], copies[keys[alike.second]]
        apart = ((one, other) for one in ones for other in others if one.split != other.split)
        one, other = next(apart, (ones[0], others[0]))
        if SPLITS.index(one.split) >= SPLITS.index(other.split):
            near.append(Pair(one, other, SAME_LESION, alike.likeness, alike.view))
        else:
            near.append(Pair(other, one, SAME_LESION, alike.likeness, opposite(alike.view)))
    identical = same(items, lambda item: pixels[id(item)])
    return [*identical, *sorted(near, key=lambda pair: -pair.likeness)]


def _split(split: str, items: Sequence[Item], glances: Sequence[Glance], classes: Sequence[str]) -> dict[str, Any]:
    rows = [(item, glance) for item, glance in zip(items, glances, strict=True) if item.split == split]
    own = [item for item, _ in rows]
    labels = Counter(item.label for item in own)
    counts = {
        "images": len(own),
        "masks": sum(item.mask is not None for item in own),
        "labels": sum(item.label is not None for item in own),
        "classes": {name: labels[name] for name in classes},
        "encoded_bytes": sum(glance.encoded_bytes for _, glance in rows),
    }
    return counts | {"sizes": _sizes(own), "lesion": _lesions(rows), "colour": _colour([g for _, g in rows])}


def _sizes(items: Sequence[Item]) -> dict[str, Any] | None:
    if not items:
        return None
    common = Counter((item.width, item.height) for item in items).most_common(5)
    return {
        "width": _spread([item.width for item in items]),
        "height": _spread([item.height for item in items]),
        "megapixels": _spread([item.width * item.height / 1e6 for item in items]),
        "most_common": [{"width": w, "height": h, "images": number} for (w, h), number in common],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _lesions(rows: Sequence[tuple[Item, Glance]]) -> dict[str, Any] | None:
    masks = [(item.image_id, glance.lesion) for item, glance in rows if glance.lesion is not None]
    if not masks:
        return None
    areas = [lesion.area for _, lesion in masks]
    counts, edges = np.histogram(areas, _BINS, (0, 1))
    return {
        "area": {f"{q:g}": float(v) for q, v in zip(_QUANTILES, np.quantile(areas, _QUANTILES), strict=True)},
        "histogram": {"edges": np.round(edges, 6).tolist(), "images": counts.tolist()},
        "empty": [image_id for image_id, lesion in masks if lesion.area == 0],
        "full": [image_id for image_id, lesion in masks if lesion.area == 1],
        "touching_border": sum(lesion.touches_border for _, lesion in masks),
    }


def _colour(glances: Sequence[Glance]) -> dict[str, list[float]] | None:
    if not glances:
        return None
    mean = np.mean([glance.mean for glance in glances], axis=0)
    square = np.mean([glance.square for glance in glances], axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return {"mean": np.round(mean, 4).tolist(), "std": np.round(std, 4).tolist()}


def _warnings(document: dict[str, Any]) -> list[str]:
    """What a user should know, a sentence each; leakage, which is said louder, is not among them."""
    warnings = []
    if conflicts := document["label_conflicts"]:
        first, second = conflicts[0]["images"]
        warnings.append(
            f"{count(len(conflicts), 'pair')} of images that show the same have different labels, for example "
            f"{first['path']} ({words(first['label'])}) and {second['path']} ({words(second['label'])})."
        )
    if inside := len(document["pairs"]) - len(document["leakage"]):
        warnings.append(f"{count(inside, 'pair')} of images within a split show the same.")
    splits = document["splits"]
    for split, held in splits.items():
        absent = [words(name) for name, number in held["classes"].items() if number == 0] if held["labels"] else []
        if absent:
            warnings.append(f"The {split} split has no {' and no '.join(absent)}.")
        for kind in ("empty", "full"):
            if held["lesion"] and (ids := held["lesion"][kind]):
                warnings.append(
                    f"{count(len(ids), f'{split} image')} with a mask that is {kind}, for example {ids[0]}."
                )
    return warnings
