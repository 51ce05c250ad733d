"""What one look at an image and its mask tells, reduced so that a whole data set fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from mbdcnn.data._alike import thumbnail
from mbdcnn.data._check import pixels_sha256
from mbdcnn.data._threads import in_threads
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import ImageError, decode_image, decode_mask

T = TypeVar("T")
_LEVELS = np.arange(256) / 255


@dataclass(frozen=True)
class Lesion:
    """A lesion mask in brief.

    Attributes:
        area: share of the image, in [0, 1].
        touches_border: whether it reaches the image's edge.
    """

    area: float
    touches_border: bool


@dataclass(frozen=True)
class Glance:
    """An image in brief.

    Attributes:
        encoded_bytes: size of the image file.
        pixels: SHA-256 of the decoded image.
        mean: `(3,)` of RGB in [0, 1].
        square: `(3,)` mean of the squares.
        thumbnail: `(64, 64)` uint8 grey.
        lesion: None without a mask.
    """

    encoded_bytes: int
    pixels: str
    mean: np.ndarray
    square: np.ndarray
    thumbnail: np.ndarray
    lesion: Lesion | None


def survey(manifest: Manifest, progress: bool = False) -> list[Glance]:
    """Look once at every image of a manifest, in its order.

    Raises:
        UserError: a file was changed since it was indexed.
    """
    return list(in_threads(lambda item: _glance(manifest, item), manifest.items, "check", progress))


def _glance(manifest: Manifest, item: Item) -> Glance:
    data = manifest.read(item.image)
    image = _decoded(manifest, item.image, decode_image, data)
    shares = np.array(Image.fromarray(image).histogram()).reshape(3, 256) / (image.shape[0] * image.shape[1])
    lesion = None
    if item.mask is not None:
        mask = _decoded(manifest, item.mask, decode_mask, manifest.read(item.mask))
        rim = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        lesion = Lesion(float(mask.mean()), bool(rim))
    return Glance(
        encoded_bytes=len(data),
        pixels=pixels_sha256(image),
        mean=shares @ _LEVELS,
        square=shares @ _LEVELS**2,
        thumbnail=thumbnail(image),
        lesion=lesion,
    )


def _decoded(manifest: Manifest, path: str, decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except ImageError:
        raise UserError(f"{manifest.root / path} has changed since it was indexed; call the command again.") from None
