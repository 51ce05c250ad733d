"""Data sets made of others: folds, and a part of the labels left out."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError


def folds(items: Sequence[Item], n: int, seed: int) -> list[tuple[Item, ...]]:
    """Share images out to disjoint folds with the same mix of classes.

    Args:
        items: to share out; those without a label are a class of their own.
        n: how many folds.
        seed: of the drawing; same items in the same order and same seed, same folds.

    Returns:
        `n` folds that hold each item once, each in the order of `items`. They differ by one image at most; so does
        every class's share in them, unless no class has `n` images.

    Raises:
        UserError: `n` is below 2 or above the number of items.
    """
    from sklearn.model_selection import KFold, StratifiedKFold  # slow to import

    if not 2 <= n <= len(items):
        raise UserError(f"{len(items)} images cannot be shared out to {n} folds: ask for 2 to as many as there are.")
    classes = [item.label or "" for item in items]
    # Without any class of n images there is nothing to keep in proportion, and scikit-learn refuses.
    kind = StratifiedKFold if max(Counter(classes).values()) >= n else KFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # then some folds lack it
        splits = list(kind(n, shuffle=True, random_state=seed).split(classes, classes))
    return [tuple(items[i] for i in held_out) for _, held_out in splits]


def fold_manifest(ph2: Manifest, monitor: Manifest, fold: int, n: int, seed: int) -> Manifest:
    """One round of cross-validation on PH2, watched on another data set.

    Args:
        ph2: whose test split is shared out: all folds but one are for training, that one is for testing.
        monitor: whose validation split chooses the epoch.
        fold: the one for testing, from 0.
        n: how many folds.
        seed: of the folds.

    Returns:
        A manifest of the folder that holds both data sets.

    Raises:
        UserError: a split is missing, or has too few images for `n` folds.
    """
    watched = monitor.select("validation")
    if not watched:
        raise UserError(f"{monitor.root} has no validation split to choose the epoch of a fold by; add one.")
    cases = ph2.select("test")
    if len(cases) < n:
        raise UserError(f"{ph2.root} has {len(cases)} test images, too few for {n} folds; add some.")
    held_out = {item.image_id for item in folds(cases, n, seed)[fold]}
    roots = ph2.root.resolve(), monitor.root.resolve()
    common = Path(os.path.commonpath(roots))
    training = [_moved(i, "training", roots[0], common) for i in cases if i.image_id not in held_out]
    validation = [_moved(i, "validation", roots[1], common) for i in watched]
    test = [_moved(i, "test", roots[0], common) for i in cases if i.image_id in held_out]
    return Manifest(common, (*training, *validation, *test), classes=monitor.classes)


def out_of_fold(manifest: Manifest, n: int, seed: int) -> list[tuple[tuple[Item, ...], Manifest]]:
    """Hold out each training image with a mask once, so that a network can segment what it has not learnt.

    Args:
        manifest: data set.
        n: how many parts to hold out in turn, as set in `bootstrap.coarse_folds`.
        seed: of the folds.

    Returns:
        For each fold what is held out, and the data set without it; copies of what is held out are left out too.

    Raises:
        UserError: there are fewer training images with a mask than folds.
    """
    learnt = manifest.select("training", masks=True)
    if len(learnt) < n:
        raise UserError(
            f"bootstrap.coarse_folds = {n} is more than the {len(learnt)} training images with a mask; lower it."
        )
    return [(held_out, _without(manifest, held_out)) for held_out in folds(learnt, n, seed)]


def supervised(manifest: Manifest, pixel_labels: int, image_labels: int, seed: int) -> Manifest:
    """Leave out all but some of the training images' masks and labels; images left with neither go too.

    Args:
        manifest: data set; its other splits stay as they are.
        pixel_labels: how many masks to keep; 0 for all. A larger number always includes a smaller one's, and both
            hold the classes in proportion.
        image_labels: how many labels to keep, likewise.
        seed: draws which. Where all images have both, the shorter of both lists is the beginning of the longer.

    Raises:
        UserError: there are not that many.
    """
    masks = _drawn(manifest, manifest.select("training", masks=True), "pixel_labels", pixel_labels, seed)
    labels = _drawn(manifest, manifest.select("training", labels=True), "image_labels", image_labels, seed)
    items = []
    for item in manifest.items:
        if item.split == "training":
            if item.image_id not in masks:
                item = replace(item, mask=None, mask_sha256=None)
            if item.image_id not in labels:
                item = replace(item, label=None)
        if item.mask is not None or item.label is not None:
            items.append(item)
    return replace(manifest, items=tuple(items))


def _without(manifest: Manifest, held_out: Sequence[Item]) -> Manifest:
    pictures = {item.sha256 for item in held_out}
    kept = (i for i in manifest.items if i.split != "training" or i.sha256 not in pictures)
    return replace(manifest, items=tuple(kept))


def _moved(item: Item, split: str, root: Path, to: Path) -> Item:
    """The item in a split of a manifest whose folder is above its own."""
    at = root.relative_to(to)
    mask = None if item.mask is None else (at / item.mask).as_posix()
    return replace(item, split=split, image=(at / item.image).as_posix(), mask=mask)


def _drawn(manifest: Manifest, items: Sequence[Item], field: str, count: int, seed: int) -> set[str]:
    """The ids of the first `count` items (0 for all) of an order whose every beginning has the same mix of classes."""
    if count > len(items):
        what = "a mask" if field == "pixel_labels" else "a label"
        raise UserError(f"supervision.{field} = {count} is more than the {len(items)} training images with {what}.")
    rng = np.random.default_rng(seed)
    place: dict[str, float] = {}
    for label in (None, *manifest.classes):
        own = [item.image_id for item in items if item.label == label]
        place |= {own[at]: (rank + 0.5) / len(own) for rank, at in enumerate(rng.permutation(len(own)))}
    ordered = sorted(place, key=lambda image_id: place[image_id])
    return set(ordered[: count or len(ordered)])
