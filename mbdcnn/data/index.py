"""Read a data folder into a manifest, opening every file once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mbdcnn.classes import SPLITS, in_order
from mbdcnn.data import isic2017, ph2, plain
from mbdcnn.data._check import check
from mbdcnn.data._duplicates import without_twins
from mbdcnn.data._isic2017_folder import list_isic2017
from mbdcnn.data._memory import Memory
from mbdcnn.data._ph2_folder import list_ph2
from mbdcnn.data._plain_folder import list_plain
from mbdcnn.data._threads import in_threads
from mbdcnn.data.leakage import same_files
from mbdcnn.data.manifest import Fault, Item, Manifest
from mbdcnn.errors import UserError

_LAYOUTS = f"{isic2017.LAYOUT}; or {ph2.LAYOUT}; or {plain.LAYOUT}"


def index_folder(root: Path, progress: bool = False) -> Manifest:
    """Read a folder of the ISIC-2017, the PH2 or the plain layout; of several that it holds, the first in this order.

    Every image and mask is decoded once, so that nothing can fail half-way through a training; one that has not changed
    since an earlier call is taken as it was then. What cannot
    be used is listed with its reason: an image without a usable mask counts for classification only, one
    without a usable label for segmentation only. ISIC-2017's extra images join the training split unless a split
    holds them already. PH2 is all test split. The plain layout has the classes that its labels name, in the order of
    `in_order`; the images that it gives no split are shared out (`draw_splits`).

    Args:
        root: the data folder.
        progress: show a bar on standard error.

    Returns:
        The usable images, ordered by split (training, validation, test), then image id; and the faults.

    Raises:
        UserError: no such folder, nothing of a layout or nothing usable in it, or a label file that is damaged or
            lacks a needed column.
    """
    try:
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"{root} {what}: name a folder that holds {_LAYOUTS}.")
        listing = list_isic2017(root) or list_ph2(root) or list_plain(root)
    except OSError as error:
        path = error.filename or root
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable.") from None
    if listing is None:
        raise UserError(f"{root} holds nothing of the ISIC-2017, the PH2 or the plain layout: it needs {_LAYOUTS}.")
    look = any(candidate.extra for candidate in listing.candidates)
    memory = Memory(root)
    work = in_threads(lambda candidate: check(root, candidate, memory, look), listing.candidates, "index", progress)
    checked = list(work)
    memory.save()
    items, twins = without_twins(root, checked)
    faults = [*listing.faults, *(fault for one in checked for fault in one.faults), *twins]
    if not items:
        example = f", for example {faults[0].path}, which {faults[0].reason}" if faults else ""
        raise UserError(f"{root} holds no usable image ({len(faults)} faults{example}): it needs {listing.layout}.")
    return Manifest(
        root,
        tuple(sorted(items, key=_item_order)),
        tuple(sorted(faults, key=_fault_order)),
        listing.classes or in_order({item.label for item in items if item.label is not None}),
        sum(item.image in listing.drawn for item in items),
    )


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Count what a manifest holds.

    Returns:
        `{"root", "fingerprint", "images", "faults", "drawn_splits", "in_several_splits", "splits"}`; `splits` maps
        each split to `{"images", "masks", "labels", "classes": {class: count}}`, `faults` lists `{"path", "reason"}`,
        `drawn_splits` counts the images whose split was drawn, and `in_several_splits` the pictures that more than one
        split holds byte for byte: leakage, which makes scores too good.
    """
    splits = {}
    for split in SPLITS:
        labels = [item.label for item in manifest.select(split, labels=True)]
        splits[split] = {
            "images": len(manifest.select(split)),
            "masks": len(manifest.select(split, masks=True)),
            "labels": len(labels),
            "classes": {name: labels.count(name) for name in manifest.classes},
        }
    return {
        "root": str(manifest.root),
        "fingerprint": manifest.fingerprint,
        "images": len(manifest.items),
        "faults": [asdict(fault) for fault in manifest.faults],
        "drawn_splits": manifest.drawn_splits,
        "in_several_splits": len({pair.first.sha256 for pair in same_files(manifest) if pair.leaks}),
        "splits": splits,
    }


def _item_order(item: Item) -> tuple[int, str]:
    return SPLITS.index(item.split), item.image_id


def _fault_order(fault: Fault) -> tuple[int, str, str]:
    top = fault.path.split("/")[0].lower()
    prefixes = [f"isic-2017_{name}_".lower() for name in isic2017.PARTS.values()]
    part = next((n for n, prefix in enumerate(prefixes) if top.startswith(prefix)), len(prefixes))
    return part, fault.path, fault.reason
