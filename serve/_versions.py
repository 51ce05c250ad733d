"""Versions of a model repository: all models move together, and the version before stays to go back to.

Triton wants `<model>/<version>/`; what a version as a whole is made of lies in the folder of the ensemble, which has
no files of its own: `mbdcnn/<version>/manifest.json`, `model_card.json` and `fingerprint.json`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError
from serve._profiles import MODELS
from serve.probe import MODEL
from serve.verify import MANIFEST, files_in, read_manifest, sha256

FORMAT_VERSION = 3  # 3: the networks answer doubts
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def current(out: Path) -> dict[str, Any] | None:
    """The manifest of the repository that an export may add to; None for a new or an empty folder.

    Raises:
        UserError: `out` is something that no export wrote, or holds files of others.
    """
    if not out.exists() and not out.is_symlink():
        return None
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out} is not a folder; choose another --out.")
    if not any(out.iterdir()):
        return None
    try:
        manifest = read_manifest(out)
    except UserError:
        raise UserError(f"{out} holds files that no export wrote; choose an empty or a new folder for --out.") from None
    known = {MANIFEST, *manifest["files"]}
    foreign = [p.relative_to(out) for p in files_in(out) if str(p.relative_to(out)) not in known]
    if foreign:
        raise UserError(f"{out} also holds {foreign[0]}, which no export wrote; move it away or choose another --out.")
    return manifest


def next_version(manifest: dict[str, Any] | None) -> int:
    """The number of the version that an export adds."""
    return 1 if manifest is None else int(manifest.get("version", 1)) + 1


def carry_over(out: Path, version: int, building: Path) -> bool:
    """Link a version of every model into the repository that is being built.

    Returns:
        Whether it was whole; nothing is linked of one that is not, or of one that is laid out otherwise.
    """
    try:
        document = read_manifest(out / MODEL / str(version))
        whole = document["format_version"] == FORMAT_VERSION and all(
            sha256(out / name) == digest for name, digest in document["files"].items()
        )
    except (UserError, OSError):
        return False
    if whole:
        for model in MODELS:
            source = out / model / str(version)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, building / model / str(version), copy_function=_link, ignore=ignored)
    return whole


@contextmanager
def replacement(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` that takes its place, at once, when the block ends well.

    Raises:
        UserError: the place cannot be written, or another process is exporting to it.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.building-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out.parent} cannot be written ({error.strerror}); choose another --out.") from None
    try:
        with _alone(out):
            yield building
            building.chmod(0o755)  # the temporary folder is its maker's alone; the server may be another user
            _publish(building, out)
    except OSError as error:
        raise UserError(f"{out} could not be written ({error.strerror or error}); nothing there was changed.") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def checksums(folder: Path, pattern: str = "*") -> dict[str, str]:
    """SHA-256 of the files of a repository whose relative names fit a pattern."""
    names = {path.relative_to(folder): path for path in files_in(folder)}
    return {str(name): sha256(path) for name, path in names.items() if name.match(pattern)}


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep two exports from adding the same version."""
    if not out.is_dir():
        yield  # the slower of two that make a new one cannot rename onto the other's
        return
    held = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is exporting to {out}; wait for it, or name another --out.") from None
        yield
    finally:
        os.close(held)


def _publish(building: Path, out: Path) -> None:
    """Put the finished repository in its place; an older one ends as `building`, to be removed."""
    if not out.exists():
        building.rename(out)
        return
    try:
        _exchange(building, out)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):  # some network file systems exchange no names
            raise
        old = building.with_name(f"{building.name}.old")
        out.rename(old)
        try:
            building.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> None:
    """Swap two names in one step, so that a server that starts meanwhile finds one repository or the other (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(b))


def _link(source: str, target: str) -> None:
    """A second name for a file rather than a copy, where the file system has such."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)
