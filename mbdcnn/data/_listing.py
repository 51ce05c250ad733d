"""What lies in a data folder by name, before any file is opened."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from mbdcnn.data.isic2017 import MASK_SUFFIX
from mbdcnn.data.manifest import Fault
from mbdcnn.preprocessing import FORMATS, MAX_BYTES

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
# Companions that the official archives or an operating system lay beside the images.
_COMPANIONS = ("_superpixels.png", "_metadata.csv", "thumbs.db", "desktop.ini")


def find(root: Path, name: str) -> tuple[Path | None, list[Fault]]:
    """Find a layout entry in the data folder, whatever its letters' case.

    Returns:
        The entry, None when there is none or it leads out of the folder; and the faults of those left out.
    """
    same = [path for path in root.iterdir() if path.name.lower() == name.lower()]
    same.sort(key=lambda path: (path.name != name, path.name))
    faults = [Fault(p.name, f"has the name of {same[0].name} but for its letters' case") for p in same[1:]]
    if same and (reason := _stray(same[0], root.resolve())):
        return None, [*faults, Fault(same[0].name, reason)]
    return (same[0] if same else None), faults


def list_images(root: Path, folder: Path) -> tuple[dict[str, Path], set[str], list[Fault]]:
    """List a split's images.

    Returns:
        The images by lower-case id; the lower-case ids of files that were left out; and the faults of these.
    """
    return _list(root, folder, "")


def list_masks(root: Path, folder: Path) -> tuple[dict[str, Path], set[str], list[Fault]]:
    """List a split's masks; as `list_images`, by the id of the image that each belongs to."""
    return _list(root, folder, MASK_SUFFIX)


def relative(root: Path, path: Path) -> str:
    """A path as manifests and faults name it; bytes that are no text are escaped."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def _list(root: Path, folder: Path, ending: str) -> tuple[dict[str, Path], set[str], list[Fault]]:
    found: dict[str, Path] = {}
    rejected: set[str] = set()
    faults: list[Fault] = []
    inside = root.resolve()
    for path in sorted(_entries(folder), key=lambda p: (p.stem.lower(), p.name)):
        name = path.name.lower()
        if name.startswith(".") or name.endswith(_COMPANIONS):
            continue
        key = path.stem.lower()
        reason = _unsupported(path, ending) or _stray(path, inside) or _size(path)
        key = key.removesuffix(ending)
        if reason is None and key in found:
            reason = f"is a second file for the id of {found[key].name}"
        if reason:
            rejected.add(key)
            faults.append(Fault(relative(root, path), reason))
        else:
            found[key] = path
    return found, rejected, faults


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # reported by the caller, for which the folder is then as good as empty
        return []


def _unsupported(path: Path, ending: str) -> str | None:
    if path.suffix.lower() not in _SUFFIXES:
        return f"is not named as a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "has a name that is not valid text; rename it"
    if not path.stem.lower().endswith(ending) or len(path.stem) == len(ending):
        return f"is not named after its image as ISIC_0000000{ending}.png"
    return None


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
