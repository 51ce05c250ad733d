"""Which files of a folder in the plain layout belong together."""

from __future__ import annotations

from pathlib import Path

from mbdcnn.data import plain
from mbdcnn.data._check import Candidate, Listing
from mbdcnn.data._drawn_splits import draw_splits
from mbdcnn.data._labels import Labels
from mbdcnn.data._listing import closed, find, find_file, list_images, list_masks_beside, relative
from mbdcnn.data._plain_labels import PlainLabels, read_plain_labels
from mbdcnn.data.manifest import Fault
from mbdcnn.errors import UserError


def list_plain(root: Path) -> Listing | None:
    """Match images, masks and labels by name; images whose split is not given are shared out (`draw_splits`).

    Returns:
        None when nothing of the layout is there.

    Raises:
        UserError: the CSV cannot be read or lacks a needed column; without it, images that are kept for a test could be
            drawn for training.
    """
    images_at, faults = find(root, root, plain.IMAGES)
    masks_at, wrong_masks = find(root, root, plain.MASKS)
    labels_at, wrong_labels = find_file(root, root, plain.LABELS)
    if labels_at is None and wrong_labels:
        raise UserError(f"{root / wrong_labels[-1].path} {wrong_labels[-1].reason}; mend it or take it away.")
    faults += wrong_masks + wrong_labels
    if images_at is None:
        missing = f"belongs to images that are not there: {plain.IMAGES}"
        faults += [Fault(at.name, missing) for at in (masks_at, labels_at) if at is not None]
        return Listing(plain.LAYOUT, [], faults, ()) if faults else None
    if wrong := closed(root, images_at):
        return Listing(plain.LAYOUT, [], [*faults, *wrong], ())

    images, broken, wrong = list_images(root, images_at)
    faults += wrong
    masks: dict[str, Path] = {}
    if masks_at is not None:
        wrong = closed(root, masks_at)
        if not wrong:
            masks, _, wrong = list_masks_beside(root, masks_at, plain.MASK_ENDINGS, images.keys() | broken)
        faults += wrong
        faults += [Fault(relative(root, masks[key]), "has no image") for key in masks.keys() - images.keys() - broken]
    read = PlainLabels(Labels(plain.LABELS))
    if labels_at is not None:
        read = read_plain_labels(labels_at, labels_at.name, images.keys() | broken)
        faults += read.labels.faults + read.labels.without_image(images.keys() | broken)

    used = [key for key in images if key not in read.left_out]
    given = {key: split for key in used if (split := read.splits.get(key))}
    drawn = draw_splits({key: read.labels.of.get(key) for key in used if key not in given})
    candidates = [Candidate((given | drawn)[key], images[key], masks.get(key), read.labels.of.get(key)) for key in used]
    return Listing(plain.LAYOUT, candidates, faults, (), frozenset(relative(root, images[key]) for key in drawn))
