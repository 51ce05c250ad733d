"""Opening the files of a data folder: what is usable becomes an item, what is not a fault."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbdcnn.classes import CLASSES
from mbdcnn.data._listing import relative
from mbdcnn.data._memory import Memory, Opened, file_state
from mbdcnn.data.manifest import Fault, Item
from mbdcnn.preprocessing import ImageError, decode_image, decode_mask


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


def check(root: Path, candidate: Candidate, memory: Memory, look: bool = False) -> Checked:
    """Decode an image and its mask, unless they are known.

    Args:
        root: the data folder.
        candidate: the image and what is said to belong to it.
        memory: of files opened before.
        look: also hash the pixels.
    """
    image, faults = _opened(root, candidate.image, decode_image, memory, look)
    if image is None:
        return Checked(candidate, None, faults)
    mask_path = mask_sha256 = None
    if candidate.mask is not None:
        mask, wrong = _opened(root, candidate.mask, decode_mask, memory)
        faults += wrong
        if mask is not None and (mask.height, mask.width) != (image.height, image.width):
            size = f"is {mask.width} x {mask.height} pixels but its image is {image.width} x {image.height}"
            faults.append(Fault(relative(root, candidate.mask), size))
        elif mask is not None:
            mask_path, mask_sha256 = relative(root, candidate.mask), mask.sha256
    path = relative(root, candidate.image)
    if mask_path is None and candidate.label is None:
        faults.append(Fault(path, "has neither a usable mask nor a usable label"))
        return Checked(candidate, None, faults, image.sha256, image.pixels)
    item = Item(
        image_id=candidate.image.stem,
        split=candidate.split,
        image=path,
        mask=mask_path,
        label=candidate.label,
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        mask_sha256=mask_sha256,
    )
    return Checked(candidate, item, faults, image.sha256, image.pixels)


def pixels_sha256(image: np.ndarray) -> str:
    """SHA-256 of an image's size and pixels `(H, W, 3)` uint8, the same for every lossless copy."""
    digest = hashlib.sha256(repr(image.shape[:2]).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _opened(
    root: Path, path: Path, decode: Callable[[bytes], np.ndarray], memory: Memory, look: bool = False
) -> tuple[Opened | None, list[Fault]]:
    """What a file shows when `decode` makes an array of it; or the fault."""
    key = f"{decode.__name__} {relative(root, path)}"
    if known := memory.recall(key, path, look):
        return known, []
    before = file_state(path)
    try:
        data = path.read_bytes()
        pixels = decode(data)
    except OSError as error:
        return None, [Fault(relative(root, path), f"cannot be read ({error.strerror})")]
    except ImageError as error:
        return None, [Fault(relative(root, path), f"cannot be used: {error}")]
    shown = pixels_sha256(pixels) if look else None
    opened = Opened(pixels.shape[0], pixels.shape[1], hashlib.sha256(data).hexdigest(), shown)
    memory.keep(key, path, before, opened)
    return opened, []
