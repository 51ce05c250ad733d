"""What a data set folder holds: usable images, their masks and labels, and the files left out with their reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mbdcnn.classes import CLASSES
from mbdcnn.errors import UserError
from mbdcnn.files import replacing


@dataclass(frozen=True)
class Item:
    """One usable image.

    Attributes:
        image_id: the file name's stem, unique in its split.
        split: `training`, `validation` or `test`.
        image: path of the encoded image, relative to the data folder.
        mask: path of the lesion mask, relative to the data folder; None without pixel label.
        label: one of the manifest's classes; None without image label.
        width: in pixels, as displayed (after EXIF orientation).
        height: in pixels, as displayed.
        sha256: of the image file's bytes.
        mask_sha256: of the mask file's bytes; None without mask.
    """

    image_id: str
    split: str
    image: str
    mask: str | None
    label: str | None
    width: int
    height: int
    sha256: str
    mask_sha256: str | None


@dataclass(frozen=True)
class Fault:
    """A file that was left out."""

    path: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The index of one data set folder.

    Attributes:
        root: the folder.
        items: the usable images.
        faults: what was left out.
        classes: that the labels are of.
        drawn_splits: how many images' split the index drew, because the folder does not give it.
    """

    root: Path
    items: tuple[Item, ...]
    faults: tuple[Fault, ...] = field(default=())
    classes: tuple[str, ...] = CLASSES
    drawn_splits: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that training can see: ids, splits, labels and content hashes, in order.

        The classes count where they are not `CLASSES`.
        """
        seen: list[object] = [(i.split, i.image_id, i.label, i.sha256, i.mask_sha256) for i in self.items]
        seen += [] if self.classes == CLASSES else [self.classes]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def select(self, split: str, *, masks: bool = False, labels: bool = False) -> tuple[Item, ...]:
        """Items of a split; only those with a mask and / or a label where asked."""
        return tuple(
            i
            for i in self.items
            if i.split == split and (i.mask is not None or not masks) and (i.label is not None or not labels)
        )

    def read(self, path: str) -> bytes:
        """The bytes of a file that an item names."""
        return (self.root / path).read_bytes()

    def save(self, path: Path) -> None:
        """Write as JSON, atomically; the root is kept absolute."""
        document = {
            "root": str(self.root.resolve()),
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            "drawn_splits": self.drawn_splits,
            "items": _as_dicts(self.items),
            "faults": _as_dicts(self.faults),
        }
        with replacing(path) as part:
            part.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what `save` wrote.

        Raises:
            UserError: the file is not a manifest.
        """
        try:
            document = json.loads(path.read_text())
            items = tuple(Item(**i) for i in document["items"])
            faults = tuple(Fault(**f) for f in document["faults"])
            classes = tuple(document.get("classes", CLASSES))  # manifests of version 0.1 name none
            return cls(Path(document["root"]), items, faults, classes, document.get("drawn_splits", 0))
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{path} is not a manifest; make one with `mbdcnn data index DIR`.") from None


def _as_dicts(rows: Iterable[Item | Fault]) -> list[dict[str, object]]:
    return [asdict(row) for row in rows]
