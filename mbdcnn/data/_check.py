"""Opening the files of a data folder: what is usable becomes an item, what is not a fault."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from mbdcnn.classes import CLASSES
from mbdcnn.data._listing import relative
from mbdcnn.data.manifest import Fault, Item
from mbdcnn.preprocessing import ImageError, decode_image, decode_mask

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """An image whose name fits, with what is said to belong to it.

    Attributes:
        split: that it goes to.
        image: its file.
        mask: file of its lesion mask.
        label: its class.
        extra: whether it gives way to an image of a split that shows the same.
    """

    split: str
    image: Path
    mask: Path | None
    label: str | None
    extra: bool = False


@dataclass(frozen=True)
class Listing:
    """A data folder by its names: the images to open and what was left out.

    Attributes:
        layout: what the folder should hold.
        candidates: the images.
        faults: what was left out by its name.
        classes: that the layout tells apart; none for those that the labels name.
        drawn: paths of the images whose split the folder does not give.
    """

    layout: str
    candidates: list[Candidate]
    faults: list[Fault]
    classes: tuple[str, ...] = CLASSES
    drawn: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Checked:
    """What opening a candidate showed.

    Attributes:
        candidate: what was opened.
        item: None when it cannot be used.
        faults: of the image and its mask.
        sha256: of the image file's bytes; None when they are no image.
        pixels: SHA-256 of the decoded image, the same for every lossless copy; None unless asked for.
    """

    candidate: Candidate
    item: Item | None
    faults: list[Fault]
    sha256: str | None = None
    pixels: str | None = None


def check(root: Path, candidate: Candidate, look: bool = False) -> Checked:
    """Decode an image and its mask.

    Args:
        root: the data folder.
        candidate: the image and what is said to belong to it.
        look: also hash the pixels.
    """
    image, faults = _decoded(root, candidate.image, lambda data: _look(decode_image(data), look))
    if image is None:
        return Checked(candidate, None, faults)
    ((height, width), pixels), sha256 = image
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
        faults.append(Fault(path, "has neither a usable mask nor a usable label"))
        return Checked(candidate, None, faults, sha256, pixels)
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
    return Checked(candidate, item, faults, sha256, pixels)


def pixels_sha256(image: np.ndarray) -> str:
    """SHA-256 of an image's size and pixels `(H, W, 3)` uint8, the same for every lossless copy."""
    digest = hashlib.sha256(repr(image.shape[:2]).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _look(image: np.ndarray, look: bool) -> tuple[tuple[int, int], str | None]:
    """An image's height and width and, where asked, the SHA-256 of these and its pixels."""
    return (image.shape[0], image.shape[1]), pixels_sha256(image) if look else None


def _decoded(root: Path, path: Path, decode: Callable[[bytes], T]) -> tuple[tuple[T, str] | None, list[Fault]]:
    """What `decode` makes of a file, and the SHA-256 of its bytes; or the fault."""
    try:
        data = path.read_bytes()
        return (decode(data), hashlib.sha256(data).hexdigest()), []
    except OSError as error:
        return None, [Fault(relative(root, path), f"cannot be read ({error.strerror})")]
    except ImageError as error:
        return None, [Fault(relative(root, path), f"cannot be used: {error}")]
