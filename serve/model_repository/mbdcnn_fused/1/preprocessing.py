"""The one definition of how an image becomes a network input and how a mask gets back to the image's own size.

Training (DALI), evaluation and serving all follow this file. It needs only NumPy and Pillow and imports nothing from
this project, because `mbdcnn export` copies it as it is into the model repository.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP")
# An image with more is refused by its header, before a pixel is decoded.
MAX_PIXELS = 1_000_000 * int(os.environ.get("MBDCNN_MAX_MEGAPIXELS", "64"))
MAX_BYTES = 64 * 2**20
# Of an encoded image that a server reads; one with more is refused before anything looks into it.
MAX_ENCODED_BYTES = 2**20 * int(os.environ.get("MBDCNN_MAX_ENCODED_MB", "32"))
MASK_THRESHOLD = 0.5


class ImageError(ValueError):
    """An image that cannot be used; the message says why and never repeats the decoder's own words."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels are presented to the networks.

    Attributes:
        image_size: side of the square network input, in pixels. The full frame is squashed to it.
        mean: per-channel mean that is subtracted, for intensities scaled to [0, 1].
        std: per-channel deviation that is divided by.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an encoded image's header and check it, without decoding pixels.

    Raises:
        ImageError: not a JPEG, PNG or BMP, larger than `max_pixels`, or with more than 8 bits per channel.
    """
    if not data:
        raise ImageError("the image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(f"the image has more than {max_pixels} pixels") from None
    except Exception:  # a hostile header can raise anything: OSError, ValueError, SyntaxError, struct.error, ...
        raise ImageError(f"not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    if image.width * image.height > max_pixels:
        raise ImageError(f"the image has {image.width} x {image.height} pixels, more than {max_pixels}")
    if image.mode.startswith(("I", "F")):  # decoders disagree on how to squeeze such values into 8 bits
        raise ImageError("the image has more than 8 bits per channel; convert it to 8 bits")
    if image.format == "BMP" and image.mode == "1" and int.from_bytes(data[28:30], "little") != 1:
        raise ImageError("the bitmap keeps two colours in 8 bits, which decoders misread; save it as PNG")
    return image


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a JPEG, PNG or BMP.

    Returns:
        `(H, W, 3)` uint8 RGB, upright by its EXIF orientation; transparency is dropped.

    Raises:
        ImageError: unreadable, truncated, of another format, or larger than `max_pixels`.
    """
    image = open_image(data, max_pixels)
    try:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:
        raise ImageError("the image is damaged or truncated") from None


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a lesion mask of any depth.

    Returns:
        `(H, W)` bool, upright by its EXIF orientation, true where the grey value is above half of the 8-bit range.

    Raises:
        ImageError: as `decode_image`.
    """
    image = open_image(data, max_pixels)
    try:
        return np.asarray(ImageOps.exif_transpose(image).convert("L")) > 127
    except Exception:
        raise ImageError("the mask is damaged or truncated") from None


def prepare(image: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Squash an image to the network's size with an antialiased triangle filter and normalise it.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        spec: size, mean and deviation.

    Returns:
        `(3, S, S)` float32.
    """
    size = (spec.image_size, spec.image_size)
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(((resized / np.float32(255) - mean) / std).transpose(2, 0, 1))


def restore(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a network's probability map to an image's own size.

    Args:
        probability: `(S, S)` float32 in [0, 1].
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        `(height, width)` float32 in [0, 1]; the lesion is where it exceeds `MASK_THRESHOLD`.
    """
    plane = Image.fromarray(np.ascontiguousarray(probability, dtype=np.float32))
    return np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
