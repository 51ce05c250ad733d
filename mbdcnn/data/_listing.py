"""What lies in a data folder by name, before any file is opened."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path

from mbdcnn.data.isic2017 import MASK_SUFFIX
from mbdcnn.data.manifest import Fault
from mbdcnn.preprocessing import FORMATS, MAX_BYTES

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_LONGEST_NAME = 200  # bytes; what is made of an image has a longer name, and file systems end at 255
_NAMELESS = f"is not named after its image as ISIC_0000000{MASK_SUFFIX}.png"
# Companions that the official archives or an operating system lay beside the images.
_COMPANIONS = ("_superpixels.png", "_metadata.csv", "thumbs.db", "desktop.ini")


def plain(name: str) -> str:
    """A name without what copies of a data set change: letters' case, spaces, underscores and hyphens."""
    return re.sub(r"[\s_-]+", "", name.lower())


def image_key(image_id: str) -> str:
    """What image ids that count as the same have in common, whatever their case, composed letters and outer spaces."""
    return unicodedata.normalize("NFC", image_id.strip()).lower()


def without_suffix(name: str) -> str:
    """A file name without the suffix that an image has; any other name as it is."""
    return name.rpartition(".")[0] if name.lower().endswith(_SUFFIXES) else name


def find(root: Path, folder: Path, name: str) -> tuple[Path | None, list[Fault]]:
    """Find a layout entry by its plain name.

    Args:
        root: the data folder.
        folder: the folder in it that should hold the entry.
        name: of the entry.

    Returns:
        The entry, None when there is none or it leads out of the data folder; and the faults of those left out.
    """
    same = [path for path in folder.iterdir() if plain(path.name) == plain(name)]
    same.sort(key=lambda path: (path.name != name, path.name))
    reason = "has the name of {} but for letters' case, spaces or underscores"
    faults = [Fault(relative(root, path), reason.format(same[0].name)) for path in same[1:]]
    if same and (stray := _stray(same[0], root.resolve())):
        return None, [*faults, Fault(relative(root, same[0]), stray)]
    return (same[0] if same else None), faults


def find_file(root: Path, folder: Path, name: str) -> tuple[Path | None, list[Fault]]:
    """Find a file as `find` does; None also when its size or kind forbids to read it."""
    path, faults = find(root, folder, name)
    if path is not None and (reason := _size(path)):
        return None, [*faults, Fault(relative(root, path), reason)]
    return path, faults


def closed(root: Path, folder: Path) -> list[Fault]:
    """The fault of a folder that cannot be listed; none when it can."""
    reason = _stray(folder, root.resolve())
    if reason is None and not folder.is_dir():
        reason = "should be a folder"
    elif reason is None and not os.access(folder, os.R_OK | os.X_OK):
        reason = "cannot be read; make it readable"
    return [Fault(relative(root, folder), reason)] if reason else []


def list_entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, but for hidden files and the companions that nobody asked for."""
    try:
        paths = sorted(folder.iterdir(), key=lambda p: (p.stem.lower(), p.name))
    except OSError:  # reported by the caller, for which the folder is then as good as empty
        return []
    return [p for p in paths if not p.name.startswith(".") and not p.name.lower().endswith(_COMPANIONS)]


def list_images(root: Path, folder: Path) -> tuple[dict[str, Path], set[str], list[Fault]]:
    """List a split's images.

    Returns:
        The images by key; the keys of files that were left out; and the faults of these.
    """
    return _list(root, folder, image_key)


def list_masks(root: Path, folder: Path) -> tuple[dict[str, Path], set[str], list[Fault]]:
    """List a split's masks; as `list_images`, by the key of the image that each belongs to."""
    return _list(root, folder, lambda stem: _without_ending(image_key(stem), MASK_SUFFIX))


def list_masks_beside(
    root: Path, folder: Path, endings: Collection[str], images: Collection[str]
) -> tuple[dict[str, Path], set[str], list[Fault]]:
    """List masks that have their image's name, or that and one of some endings; as `list_masks`.

    Args:
        root: the data folder.
        folder: of the masks.
        endings: such as `_mask`.
        images: keys of the images: a mask belongs to the one that has its whole name, if there is one.
    """

    def key_of(stem: str) -> str:
        key = image_key(stem)
        shorter = (_without_ending(key, ending) for ending in endings)
        return key if key in images else next(filter(None, shorter), key)

    return _list(root, folder, key_of)


def relative(root: Path, path: Path) -> str:
    """A path as manifests and faults name it; bytes that are no text are escaped."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def _list(root: Path, folder: Path, key_of: Callable[[str], str]) -> tuple[dict[str, Path], set[str], list[Fault]]:
    """List a folder's pictures by the image key that `key_of` makes of a file's stem, "" where it makes none."""
    found: dict[str, Path] = {}
    rejected: set[str] = set()
    faults: list[Fault] = []
    inside = root.resolve()
    for path in list_entries(folder):
        key = key_of(path.stem)
        reason = _unsupported(path) or ("" if key else _NAMELESS) or _stray(path, inside) or _size(path)
        if not reason and key in found:
            reason = f"is a second file for the id of {found[key].name}"
        if reason:
            rejected.add(key)
            faults.append(Fault(relative(root, path), reason))
        else:
            found[key] = path
    return found, rejected, faults


def _unsupported(path: Path) -> str | None:
    if path.suffix.lower() not in _SUFFIXES:
        return f"is not named as a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    try:
        length = len(path.name.encode())
    except UnicodeEncodeError:
        return "has a name that is not valid text; rename it"
    return f"has a name of more than {_LONGEST_NAME} bytes; shorten it" if length > _LONGEST_NAME else None


def _without_ending(key: str, ending: str) -> str:
    return key.removesuffix(ending) if key.endswith(ending) else ""


def _stray(path: Path, inside: Path) -> str | None:
    """Why a path must not be followed: a manifest speaks for its own folder alone."""
    try:
        if not path.resolve(strict=True).is_relative_to(inside):
            return "is a link that leads out of the data folder"
    except (OSError, RuntimeError):  # a loop is a RuntimeError before Python 3.13
        return "is a link that leads nowhere"
    return None


def _size(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        return "is not a regular file"
    if status.st_size == 0:
        return "is empty"
    if status.st_size > MAX_BYTES:
        return f"has {status.st_size / 2**20:.0f} MiB, more than the {MAX_BYTES // 2**20} MiB that are read"
    return None
