"""Images on their way to a server: found in folders, read, and checked before they are sent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mbdcnn.errors import UserError
from mbdcnn.preprocessing import MAX_ENCODED_BYTES
from serve.client._errors import ImageRefusedError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
ImageLike = bytes | str | Path  # encoded bytes, or the path of a JPEG, PNG or BMP


def image_files(folder: Path) -> list[Path]:
    """The JPEG, PNG and BMP files of a folder, sorted, not those of its sub-folders.

    Raises:
        UserError: there are none, or the folder cannot be read.
    """
    try:
        inside = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); name a folder of images.") from None
    if not inside:
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)}); name a folder that does.")
    return inside


def pictures(source: str | Path | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """The images of a folder, or those that are given."""
    return image_files(Path(source)) if isinstance(source, str | Path) else source


def name_of(image: ImageLike) -> str:
    """What messages call an image."""
    return "the image" if isinstance(image, bytes) else str(image)


def read_image(image: ImageLike) -> bytes:
    """An image's encoded bytes, refused before sending where the server would refuse them for their size.

    A server with another limit (`MBDCNN_MAX_ENCODED_MB`) wants the same variable here.

    Raises:
        ImageRefusedError: missing, unreadable, empty or too large.
    """
    name = name_of(image)
    if isinstance(image, bytes):
        _check_size(len(image), name)
        return image
    path = Path(image)
    try:
        if not path.is_file():
            raise ImageRefusedError(f"{name}: there is no such file.")
        _check_size(path.stat().st_size, name)
        return path.read_bytes()
    except OSError as error:
        raise ImageRefusedError(f"{name}: cannot be read ({error.strerror}).") from None


def _check_size(size: int, name: str) -> None:
    if size == 0:
        raise ImageRefusedError(f"{name}: the image is empty.")
    if size > MAX_ENCODED_BYTES:
        raise ImageRefusedError(f"{name}: the image file has {size} bytes, more than {MAX_ENCODED_BYTES}.")
