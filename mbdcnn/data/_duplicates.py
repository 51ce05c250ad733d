"""Extra images that a split holds already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mbdcnn.data._check import Checked
from mbdcnn.data._listing import relative
from mbdcnn.data.leakage import SAME_FILE, SAME_PIXELS
from mbdcnn.data.manifest import Fault, Item


def without_twins(root: Path, checked: Sequence[Checked]) -> tuple[list[Item], list[Fault]]:
    """Leave out the extra images that are in a split, or among the extra images, already.

    A twin has the same file, the same pixels in another lossless encoding, or the same image id; it counts also where
    it is of no use itself, as its mask or label may come later. A copy compressed anew with loss and given another id
    is not found. Images of the official splits always stay.

    Args:
        root: the data folder.
        checked: in the order of the splits, all with hashed pixels if any is extra.

    Returns:
        The items that stay, and a fault for each one left out that names its twin.
    """
    items: list[Item] = []
    faults: list[Fault] = []
    seen: dict[tuple[str, str], str] = {}
    official = [one for one in checked if not one.candidate.extra]
    # The last splits first, so that of several twins the one that would spoil a score is named.
    for one in [*reversed(official), *(one for one in checked if one.candidate.extra)]:
        path = one.candidate.image
        known_by = (
            (SAME_FILE, one.sha256),
            (SAME_PIXELS, one.pixels),
            ("has the image id of", path.stem.lower()),
        )
        keys = [(reason, value) for reason, value in known_by if value is not None]
        twin = next((key for key in keys if key in seen), None)
        if one.candidate.extra and one.item is not None and twin is not None:
            faults.append(Fault(one.item.image, f"{twin[0]} {seen[twin]}"))
            continue
        if one.item is not None:
            items.append(one.item)
        for key in keys:
            seen.setdefault(key, relative(root, path))
    return items, faults
