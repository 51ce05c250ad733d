"""Reduced copies of a data set, decoded once, so that training need not decode the originals in every epoch."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mbdcnn
from mbdcnn.data._reduce import reduce_image, reduce_mask
from mbdcnn.data._threads import in_threads
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.files import locked, replacing

FOLDER = "prepared"  # in the data folder, unless told otherwise
RECORD = "prepared.json"
_LEAST_SHORT_SIDE = 32
_FORMAT = 1  # raise when the same original would become another copy
_KINDS = ("images", "masks")
_OURS = re.compile(r".+-[0-9a-f]{16}\.(jpg|png)(\.part)?")


@dataclass(frozen=True)
class Copies:
    """The prepared copies of a data set.

    Attributes:
        folder: that holds them.
        short_side: that their originals were reduced to, in pixels.
        images: SHA-256 of an original image -> its copy.
        masks: SHA-256 of an original mask -> its copy.
    """

    folder: Path
    short_side: int
    images: dict[str, Path]
    masks: dict[str, Path]

    @property
    def key(self) -> str:
        """A name for how the copies were made: equal keys, equal pixels."""
        return f"{self.short_side}px-{_FORMAT}"


@dataclass(frozen=True)
class _Copy:
    """A copy to make; its name says what it is made from and how, so that one that is there need not be made again."""

    kind: str
    name: str  # relative to the folder, without the suffix
    source: str  # relative to the data folder
    sha256: str  # of the source


def prepare(manifest: Manifest, out: Path, short_side: int = 512, progress: bool = False) -> dict[str, Any]:
    """Write a reduced copy of every image and mask; what an earlier call has made is not made again.

    `out/prepared.json` is written last; without it the copies are not complete. Copies that no image needs any more
    are deleted then. Every file appears whole or not at all.

    Args:
        manifest: data set.
        out: folder to write to, made when missing.
        short_side: of the copies in pixels, at least 32; smaller images keep their size.
        progress: show a bar on standard error.

    Returns:
        `{"folder", "short_side", "images", "masks", "already_there", "bytes_before", "bytes_after", "seconds"}`.

    Raises:
        UserError: the short side is out of range, an original has changed since it was indexed, another process is
            at work in the folder, or it cannot be written.
    """
    if short_side < _LEAST_SHORT_SIDE:
        raise UserError(f"--short-side is {short_side}; give at least {_LEAST_SHORT_SIDE} pixels.")
    start = time.monotonic()
    copies = _copies(manifest, short_side)
    with _writing(out), locked(out):
        for kind in _KINDS:
            (out / kind).mkdir(exist_ok=True)
        before = _sizes(out)
        try:
            work = partial(_make, manifest, out, short_side, before)
            made = list(in_threads(work, copies, "prepare", progress))
        finally:  # what a killed call has left, too
            _delete(out, "*.part", keep=())
        files = {name: size for name, size, _ in made}
        record = {
            "format": _FORMAT,
            "version": mbdcnn.__version__,
            "fingerprint": manifest.fingerprint,
            "short_side": short_side,
            "files": files,
        }
        with replacing(out / RECORD) as part:
            part.write_text(json.dumps(record, indent=1) + "\n")
        _delete(out, "*", keep=files)
    return {
        "folder": str(out),
        "short_side": short_side,
        **{kind: sum(copy.kind == kind for copy in copies) for kind in _KINDS},
        "already_there": sum(there for _, _, there in made),
        "bytes_before": sum((manifest.root / copy.source).stat().st_size for copy in copies),
        "bytes_after": sum(files.values()),
        "seconds": round(time.monotonic() - start, 1),
    }


def find_copies(manifest: Manifest, folder: Path) -> Copies:
    """The copies in a folder, after checking that they are all there and of this very data set.

    Raises:
        UserError: they are not; the sentence says why and how to mend it.
    """
    place = "" if folder == manifest.root / FOLDER else f" --out {folder}"
    mend = f"`mbdcnn data prepare {manifest.root}{place}"
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; {mend}` makes it.")
    record = _record(folder)
    if record is None:
        raise UserError(f"{folder} holds no whole set of prepared copies; {mend}` makes or completes it.")
    short_side: int = record["short_side"]
    mend += f" --short-side {short_side}`"
    if record["fingerprint"] != manifest.fingerprint:
        raise UserError(f"{folder} was prepared from other files or labels than {manifest.root} has; {mend} mends it.")
    names = {name.rpartition(".")[0]: name for name in record["files"]}
    found: dict[str, dict[str, Path]] = {kind: {} for kind in _KINDS}
    for copy in _copies(manifest, short_side):
        name = names.get(copy.name)
        if name is None or _size(folder / name) != record["files"][name]:
            raise UserError(f"{folder / (name or copy.name)} is missing or damaged; {mend} makes it again.")
        found[copy.kind][copy.sha256] = folder / name
    return Copies(folder, short_side, **found)


def _copies(manifest: Manifest, short_side: int) -> list[_Copy]:
    """Every copy that a data set needs, each once."""
    needed: dict[str, _Copy] = {}
    for item in manifest.items:
        for kind, source, sha256 in zip(_KINDS, (item.image, item.mask), (item.sha256, item.mask_sha256), strict=True):
            if source is not None and sha256 is not None:
                made_from = hashlib.sha256(f"{_FORMAT} {kind} {short_side} {sha256}".encode()).hexdigest()
                name = f"{kind}/{item.image_id}-{made_from[:16]}"
                needed.setdefault(name, _Copy(kind, name, source, sha256))
    return list(needed.values())


def _make(manifest: Manifest, out: Path, short_side: int, before: dict[str, int], copy: _Copy) -> tuple[str, int, bool]:
    """Write a copy unless it is there; its name, its size and whether it was there."""
    for suffix in (".jpg", ".png"):
        name = copy.name + suffix
        size = _size(out / name)
        if size and size == before.get(name, size):
            return name, size, True
    try:
        data = manifest.read(copy.source)
    except OSError as error:
        raise UserError(f"{manifest.root / copy.source} cannot be read ({error.strerror}); try again.") from None
    if hashlib.sha256(data).hexdigest() != copy.sha256:
        raise UserError(f"{manifest.root / copy.source} has changed since it was indexed; try again.")
    suffix, data = reduce_image(data, short_side) if copy.kind == "images" else (".png", reduce_mask(data, short_side))
    with replacing(out / (copy.name + suffix)) as part:
        part.write_bytes(data)
    return copy.name + suffix, len(data), False


def _record(folder: Path) -> dict[str, Any] | None:
    """What `prepare` wrote last; None where there is nothing that this version can read."""
    try:
        record = json.loads((folder / RECORD).read_text())
        whole = record["format"] == _FORMAT and isinstance(record["short_side"], int)
        return record if whole and isinstance(record["files"], dict) and record["fingerprint"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sizes(folder: Path) -> dict[str, int]:
    """How large the files of the last complete call were: one of another size has been damaged since."""
    record = _record(folder)
    return {} if record is None else record["files"]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _delete(out: Path, pattern: str, keep: Sequence[str] | dict[str, int]) -> None:
    """Delete files that carry a name of ours, but for those to keep."""
    for kind in _KINDS:
        for path in (out / kind).glob(pattern):
            if _OURS.fullmatch(path.name) and f"{kind}/{path.name}" not in keep:
                path.unlink()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or "unknown cause"
        raise UserError(
            f"{out} cannot be written ({why}): make room or name another folder with --out; what is done stays."
        ) from None
