"""Splits for images that come without."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def draw_splits(labels: Mapping[str, str | None]) -> dict[str, str]:
    """Share images out to training, validation and test, 70 : 15 : 15, the same way each time.

    The images of each class, and those without one, are put in the order of a hash of their ids; the first go to
    training, the next to validation, the last to test. The quotas are by class, so that a class of three images or
    more is in every split; of two images the second is for validation, and a single one for training. Another image
    finds its place in that order and moves the two borders by one place at most: of all that were there before, two
    images change their split at most. So does another label, in each of both classes.

    Args:
        labels: image id -> class, None without.
    """
    by_class: dict[str | None, list[str]] = {}
    for image_id, label in labels.items():
        by_class.setdefault(label, []).append(image_id)
    splits = {}
    for ids in by_class.values():
        training, validation = _quotas(len(ids))
        for place, image_id in enumerate(sorted(ids, key=_hash)):
            later = "validation" if place < training + validation else "test"
            splits[image_id] = "training" if place < training else later
    return splits


def _quotas(n: int) -> tuple[int, int]:
    """How many of n images are for training and for validation; whole-number arithmetic, the same on every machine."""
    test = max(1, 15 * n // 100) if n > 2 else 0
    validation = max(1, (15 * n + 50) // 100) if n > 1 else 0
    return n - validation - test, validation


def _hash(image_id: str) -> str:
    return hashlib.sha256(image_id.encode()).hexdigest()
