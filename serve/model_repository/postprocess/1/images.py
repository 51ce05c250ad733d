"""Encoded images to network input, and lesion probabilities to masks; copied by the export beside its models."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from preprocessing import (  # the export's copy, beside this file
    MASK_THRESHOLD,
    ImageError,
    Preprocessing,
    decode_image,
    prepare,
    restore,
)


def setting(args: dict[str, str], name: str, variable: str) -> str:
    """What the server's environment says, or else a parameter of the model's configuration.

    Args:
        args: of Triton's `initialize`.
        name: of the parameter.
        variable: of the environment.
    """
    return os.environ.get(variable) or parameter(args, name) or ""


def parameter(args: dict[str, str], name: str) -> str | None:
    """A parameter of the model's configuration; None where it has none."""
    given = json.loads(args["model_config"])["parameters"].get(name)
    return None if given is None else given["string_value"]


def most_pixels(args: dict[str, str]) -> int:
    """How many pixels an image or a mask may have."""
    return 1_000_000 * int(setting(args, "max_megapixels", "MBDCNN_MAX_MEGAPIXELS"))


@dataclass(frozen=True)
class Reader:
    """Turns encoded images into network input, within limits.

    Attributes:
        spec: how images become network input.
        max_bytes: of an encoded image.
        max_pixels: of an image, by its header.
    """

    spec: Preprocessing
    max_bytes: int
    max_pixels: int

    @classmethod
    def configured(cls, args: dict[str, str]) -> Reader:
        """As the configuration, the environment and the export's `preprocessing.json` say."""
        spec = json.loads((Path(__file__).parent / "preprocessing.json").read_text())
        max_bytes = 2**20 * int(setting(args, "max_encoded_mb", "MBDCNN_MAX_ENCODED_MB"))
        preprocessing = Preprocessing(spec["image_size"], tuple(spec["mean"]), tuple(spec["std"]))
        return cls(preprocessing, max_bytes, most_pixels(args))

    def read(self, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        """One image: `(3, S, S)` float32, and its height and width as displayed.

        Raises:
            ImageError: too large, or not a usable image.
        """
        self.check_bytes(data)
        try:
            image = decode_image(data, self.max_pixels)
            return prepare(image, self.spec), image.shape[:2]
        except MemoryError:
            raise ImageError("the image is too large for this server's memory") from None

    def check_bytes(self, data: bytes) -> None:
        """Refuse an encoded image that is too long, before anything looks into it.

        Raises:
            ImageError: it has more than `max_bytes`.
        """
        if len(data) > self.max_bytes:
            raise ImageError(f"the image file has {len(data)} bytes, more than {self.max_bytes}")


def read_batch(
    encoded: Iterable[bytes], read: Callable[[bytes], tuple[np.ndarray, tuple[int, int]]]
) -> tuple[np.ndarray, np.ndarray]:
    """The images of one request.

    Returns:
        `(n, 3, S, S)` float32, and `(n, 2)` int32 heights and widths.

    Raises:
        ImageError: with a clause for each image that cannot be used, numbered where there are several.
    """
    batch = list(encoded)
    images, sizes, faults = [], [], []
    for position, data in enumerate(batch, 1):
        try:
            image, size = read(data)
        except ImageError as error:
            faults.append(f"image {position} of {len(batch)}: {error}" if len(batch) > 1 else str(error))
            continue
        images.append(image)
        sizes.append(size)
    if faults:
        raise ImageError("; ".join(faults))
    batch_of_images = images[0][None] if len(images) == 1 else np.stack(images)  # which copies even a single one
    return batch_of_images, np.array(sizes, dtype=np.int32)


def mask_pngs(lesions: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Masks at the images' own sizes.

    Args:
        lesions: `(n, 1, S, S)` float32 in [0, 1].
        sizes: `(n, 2)` heights and widths.

    Returns:
        `(n, 1)` PNGs of 0 and 255.
    """
    masks = [_png(lesion[0], int(h), int(w)) for lesion, (h, w) in zip(lesions, sizes, strict=True)]
    return np.array(masks, dtype=np.object_).reshape(-1, 1)


def _png(probability: np.ndarray, height: int, width: int) -> bytes:
    mask = np.where(restore(probability, height, width) > MASK_THRESHOLD, np.uint8(255), np.uint8(0))
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", compress_level=1)  # a mask compresses well at any level
    return buffer.getvalue()
