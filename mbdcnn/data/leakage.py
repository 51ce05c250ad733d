"""Pictures that a data set holds more than once, and the words for those that two splits share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbdcnn.classes import SPLITS
from mbdcnn.data.manifest import Item, Manifest

SAME_FILE = "is the same file as"
SAME_PIXELS = "shows the same pixels as"
SAME_LESION = "is a near-duplicate of"
_NAMED = 10


@dataclass(frozen=True)
class Pair:
    """Two images that show the same.

    Attributes:
        first: of the later split, where they differ: the one whose score is spoilt.
        second: the other one.
        relation: how the first relates to the second, one of `SAME_FILE`, `SAME_PIXELS` and `SAME_LESION`.
        likeness: correlation of their small structures, in (0, 1].
        view: how the second has to be turned to lie as the first does.
    """

    first: Item
    second: Item
    relation: str
    likeness: float = 1.0
    view: str = "as it is"

    @property
    def leaks(self) -> bool:
        """Whether the two are in different splits."""
        return self.first.split != self.second.split

    @property
    def conflicts(self) -> bool:
        """Whether the two have different labels."""
        return None not in (self.first.label, self.second.label) and self.first.label != self.second.label

    def document(self) -> dict[str, Any]:
        """As JSON; `leakage_warning` reads it."""
        images = [
            {"path": i.image, "image_id": i.image_id, "split": i.split, "label": i.label}
            for i in (self.first, self.second)
        ]
        return {"relation": self.relation, "images": images, "likeness": self.likeness, "view": self.view}


def same(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[Pair]:
    """Pair the images of equal key, which are the same pictures.

    So n images make n - 1 pairs; each image that is in another split too is in a pair that leaks.
    """
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    pairs = []
    for group in groups.values():
        first = max(group, key=lambda item: SPLITS.index(item.split))
        elsewhere = next((item for item in group if item.split != first.split), None)
        for item in group:
            if item is not first:
                twins = (first, item) if elsewhere is None or item.split != first.split else (item, elsewhere)
                relation = SAME_FILE if twins[0].sha256 == twins[1].sha256 else SAME_PIXELS
                pairs.append(Pair(*twins, relation))
    return pairs


def same_files(manifest: Manifest) -> list[Pair]:
    """The images that are there more than once byte for byte; opens no file."""
    return same(manifest.items, lambda item: item.sha256)


def leakage_warning(pairs: Sequence[Mapping[str, Any]], listed_in: str) -> str:
    """What to say of pairs whose images are in different splits, loudly.

    Args:
        pairs: as `Pair.document` gives them, at least one.
        listed_in: where all of them are, for when there are too many to name.
    """
    what = "1 pair of images shows" if len(pairs) == 1 else f"{len(pairs)} pairs of images show"
    lines = [f"WARNING, LEAKAGE: {what} the same in two splits; scores will be too good unless one of each is removed:"]
    for pair in pairs[:_NAMED]:
        first, second = (f"{image['path']} ({image['split']})" for image in pair["images"])
        lines.append(f"  {first} {pair['relation']} {second}")
    if len(pairs) > _NAMED:
        lines.append(f"  and {len(pairs) - _NAMED} more, listed in {listed_in}")
    return "\n".join(lines)
