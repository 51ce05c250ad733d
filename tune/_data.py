"""The data set of a search, decoded once on each machine however many trials run there."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from mbdcnn.config import Config
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.prepared import Copies, find_copies, prepare
from mbdcnn.errors import UserError
from mbdcnn.files import locked
from train.pixels import ORIGINALS, choose_copies

_PATIENCE_S = 3600.0  # for another trial that reads or reduces a large data set
_FORMAT = 1


@dataclass(frozen=True)
class SearchData:
    """What the trials train on.

    Attributes:
        root: data folder, at the same place on every machine.
        fingerprint: of the data set.
        short_side: that each machine reduces its own copies to, in pixels; 0 for none.
        copies: folder of copies that all machines share; None without.
        pixels: what the copies are called, as in `stage_key`; empty for the originals.
    """

    root: Path
    fingerprint: str
    short_side: int = 0
    copies: Path | None = None
    pixels: str = ""


def choose_data(manifest: Manifest, prepared: str | None, configs: Iterable[Config]) -> SearchData:
    """Decide what the trials train on.

    Prepared copies that fit are taken. Without, images that are larger than any crop needs are reduced, by each machine
    once, into its user's cache folder.

    Args:
        manifest: data set.
        prepared: as in `train.pixels.choose_copies`.
        configs: settings of the trainings that look closest: copies serve all of them.

    Raises:
        UserError: the copies in the folder that was named do not fit.
    """
    closest = max(configs, key=_needed)
    given = choose_copies(manifest, prepared, closest)
    root = manifest.root.resolve()
    if given is not None:
        return SearchData(root, manifest.fingerprint, copies=given.folder.resolve(), pixels=given.key)
    short_side = _needed(closest)
    if prepared == ORIGINALS or all(min(item.width, item.height) <= short_side for item in manifest.items):
        return SearchData(root, manifest.fingerprint)
    print(f"each machine reduces the images to a short side of {short_side} pixels, once", file=sys.stderr)
    return SearchData(root, manifest.fingerprint, short_side, pixels=f"{short_side}px-{_FORMAT}")


def load_data(data: SearchData) -> tuple[Manifest, Copies | None, bool]:
    """The data set on this machine; of several trials that ask for it at once, the first does the work.

    Returns:
        The manifest, the copies to train on (None for the originals), and whether this call has made them.

    Raises:
        UserError: this machine has no such folder, or other data in it.
    """
    cache = user_cache_path("mbdcnn") / "tune"
    name = hashlib.sha256(os.fsencode(data.root)).hexdigest()[:16]
    with locked(cache / name, patience=_PATIENCE_S):
        manifest = index_folder(data.root)  # what has not changed since the last call is not decoded again
        if manifest.fingerprint != data.fingerprint:
            raise UserError(
                f"{data.root} holds other data on the machine {os.uname().nodename} than where the search was started; "
                "give all machines the same."
            )
        if data.copies is not None:
            return manifest, find_copies(manifest, data.copies), False
        if not data.short_side:
            return manifest, None, False
        folder = cache / f"{data.fingerprint[:16]}-{data.pixels}"
        try:
            return manifest, find_copies(manifest, folder), False
        except UserError:
            prepare(manifest, folder, data.short_side)
            return manifest, find_copies(manifest, folder), True


def _needed(config: Config) -> int:
    """The short side at which the smallest crop still has a pixel for each of the network's."""
    return -int(-config.preprocessing.image_size // config.augmentation.crop_min)
