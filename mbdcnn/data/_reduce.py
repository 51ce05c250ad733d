"""Encoded images and masks made smaller, for the prepared copies."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mbdcnn.preprocessing import decode_image, decode_mask, open_image

# JPEGs are decoded at the coarsest scale that still has this many times the wanted pixels along each side: a quarter
# of the time and memory of a whole decode, for 0.2 levels in the mean.
_SPARE = 2


def reduce_image(data: bytes, short_side: int) -> tuple[str, bytes]:
    """Make an encoded image smaller, upright and RGB.

    Args:
        data: what `decode_image` has read before.
        short_side: of the result in pixels; the aspect ratio stays, and nothing is enlarged.

    Returns:
        Suffix and content of the file to write: a JPEG of quality 95 with whole colour resolution. An image that is
        small already loses nothing: an ordinary JPEG stays as it is, anything else becomes a PNG.
    """
    image = open_image(data)
    if min(image.size) <= short_side:
        return (".jpg", data) if _is_ordinary(image) else (".png", _encoded(decode_image(data), "PNG"))
    width, height = _reduced(image.size, short_side)
    image.draft(None, (_SPARE * width, _SPARE * height))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    turned = (upright.width > upright.height) != (width > height)
    size = (height, width) if turned else (width, height)
    small = upright.resize(size, Image.Resampling.LANCZOS)
    return ".jpg", _encoded(np.asarray(small), "JPEG", quality=95, subsampling=0)


def reduce_mask(data: bytes, short_side: int) -> bytes:
    """Make an encoded mask smaller: a pixel is lesion where at least half of what it covers is.

    Args:
        data: what `decode_mask` has read before.
        short_side: of the result in pixels, as in `reduce_image`.

    Returns:
        An 8-bit PNG, 0 or 255: decoders misread two colours in one bit.
    """
    mask = Image.fromarray(decode_mask(data).astype(np.uint8) * 255)
    if min(mask.size) > short_side:
        share = np.asarray(mask.resize(_reduced(mask.size, short_side), Image.Resampling.BOX))
        mask = Image.fromarray((share > 127).astype(np.uint8) * 255)
    return _encoded(np.asarray(mask), "PNG")


def _reduced(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _is_ordinary(image: Image.Image) -> bool:
    """Whether every decoder reads a file alike: an upright baseline JPEG in the usual colour space."""
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    usual = image.mode == "RGB" and image.info.get("adobe_transform", 1) == 1
    return image.format == "JPEG" and upright and usual and not image.info.get("progressive")


def _encoded(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    """The file of an array; whatever its original said besides pixels (profile, comment, place) is left behind."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
