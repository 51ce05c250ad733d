"""Pictures that show the same lesion: recompressed, resized, cropped, recoloured, mirrored or turned copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image

from mbdcnn.data._registration import SIDE, detail, likeness
from mbdcnn.data._threads import in_threads

# How the second picture of a pair has to be turned to lie as the first does; a turn is anticlockwise, before a mirror.
VIEWS = (
    "as it is",
    "mirrored",
    "turned by 90°",
    "turned by 90° and mirrored",
    "turned by 180°",
    "turned by 180° and mirrored",
    "turned by 270°",
    "turned by 270° and mirrored",
)
_INVERSE = np.array([0, 1, 6, 3, 4, 5, 2, 7])
_HASH_SIDE = 12
_BITS = _HASH_SIDE**2
_CROPS = (1.0, 0.95, 0.9)
# Measured on the 2,150 images of ISIC-2017: a quarter of the bits finds every copy but some cropped from one side, and
# one of 250 pairs of strangers. Those correlate to 0.53 at most, the 18 true pairs among them to 0.70 and more.
_FEWEST_AGREEING = _BITS - 36
_SAME = 0.63
_FLATTEST = 2.0  # grey levels of deviation: below, there is nothing to compare
_ROWS = 512
_PAIRS = 256


@dataclass(frozen=True)
class Alike:
    """Two pictures of one lesion.

    Attributes:
        first: position of one picture.
        second: position of the other, the greater one.
        view: how the second has to be turned to lie as the first, one of `VIEWS`.
        likeness: correlation of their small structures, in (0, 1].
    """

    first: int
    second: int
    view: str
    likeness: float


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Squash an image `(H, W, 3)` uint8 to the `(64, 64)` uint8 grey one that is compared."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX).convert("L"))


def turned(planes: np.ndarray, view: int) -> np.ndarray:
    """Planes `(..., h, w)` in one of the eight views."""
    turns, mirror = divmod(view, 2)
    planes = np.rot90(planes, turns, axes=(-2, -1))
    return planes[..., ::-1] if mirror else planes


def opposite(view: str) -> str:
    """How the first picture of a pair has to be turned to lie as the second, of which `view` says the same."""
    return VIEWS[_INVERSE[VIEWS.index(view)]]


def find_alike(thumbnails: np.ndarray, progress: bool = False) -> list[Alike]:
    """Find pictures that are copies of each other.

    Perceptual hashes of the eight views and of two central crops propose pairs; the correlation of small structures
    confirms them, because lesions look alike at a hash's resolution.

    Args:
        thumbnails: `(N, 64, 64)` uint8 grey.
        progress: show a bar on standard error.

    Returns:
        The pairs, the first pictures in order.
    """
    telling = np.flatnonzero(thumbnails.std(axis=(1, 2)) > _FLATTEST)
    if len(telling) < 2:
        return []
    kept = thumbnails[telling]
    pairs = _proposed(kept)
    details = detail(kept)
    batches = [pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS)]

    def compare(some: np.ndarray) -> np.ndarray:
        others = np.stack([turned(details[second], view) for _, second, view in some])
        return likeness(details[some[:, 0]], others)

    best: dict[tuple[int, int], tuple[float, int]] = {}
    for some, found in zip(batches, in_threads(compare, batches, "compare", progress), strict=True):
        for (first, second, view), value in zip(some[found > _SAME].tolist(), found[found > _SAME], strict=True):
            if value > best.get((first, second), (0.0, 0))[0]:
                best[first, second] = (float(value), view)
    return [
        Alike(int(telling[first]), int(telling[second]), VIEWS[view], round(min(found, 1.0), 3))
        for (first, second), (found, view) in sorted(best.items())
    ]


def _proposed(thumbnails: np.ndarray) -> np.ndarray:
    """Rows `(first, second, view)` of the pairs whose hashes agree, first below second, each once."""
    views, crops = _codes(thumbnails)
    rows = []
    for first, second in _agreeing(views, crops):
        view = _best_view(views[:, second], crops[:, first])
        swapped = first > second
        low, high = np.minimum(first, second), np.maximum(first, second)
        rows.append(np.stack([low, high, np.where(swapped, _INVERSE[view], view)], axis=1))
    return np.unique(np.concatenate(rows), axis=0)


def _agreeing(views: np.ndarray, crops: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of a picture and of another one, a view of which agrees with a crop of it; some rows at a time."""
    count = views.shape[1]
    for start in range(0, count, _ROWS):
        best = np.full((min(_ROWS, count - start), count), -_BITS, np.float32)
        for crop in crops:
            for view in views:
                np.maximum(best, crop[start : start + _ROWS] @ view.T, out=best)
        # the product of two codes of -1 and 1 is the number of agreeing bits less that of the others
        first, second = np.nonzero(best >= 2 * _FEWEST_AGREEING - _BITS)
        first += start
        yield first[first != second], second[first != second]


def _best_view(views: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """The view `(P,)` that agrees best with one of the crops: codes `(8, P, bits)` and `(3, P, bits)`."""
    agreeing = np.stack([np.stack([(crop * view).sum(axis=1) for crop in crops]).max(axis=0) for view in views])
    return agreeing.argmax(axis=0)


def _codes(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes as -1 and 1: of the views `(8, N, bits)` and of the crops `(3, N, bits)`."""
    views = np.empty((len(VIEWS), len(thumbnails), _BITS), np.float32)
    crops = np.empty((len(_CROPS), len(thumbnails), _BITS), np.float32)
    for row, plane in enumerate(thumbnails):
        for number in range(len(VIEWS)):
            views[number, row] = _code(Image.fromarray(np.ascontiguousarray(turned(plane, number))))
        for number, share in enumerate(_CROPS):
            rim = SIDE * (1 - share) / 2
            box = (rim, rim, SIDE - rim, SIDE - rim)
            crops[number, row] = _code(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))
    return views, crops


def _code(plane: Image.Image) -> np.ndarray:
    return imagehash.phash(plane, hash_size=_HASH_SIDE).hash.ravel() * np.float32(2) - 1
