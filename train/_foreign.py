"""Pictures that are not dermoscopic, drawn: noise, clouds, documents, charts, patterns and plain colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

_SIDE = 256
_OF_EACH = 10
_SEED = 2017
_WORDS = (
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
)


def drawn() -> dict[str, list[np.ndarray]]:
    """Ten pictures `(256, 256, 3)` uint8 of each kind, always the same."""
    rng = np.random.default_rng(_SEED)
    return {name: [draw(rng) for _ in range(_OF_EACH)] for name, draw in _KINDS.items()}


def _noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of any colour."""
    grain = gaussian_filter(rng.normal(size=(_SIDE, _SIDE, 3)), (rng.uniform(4, 24),) * 2 + (0,))
    low, high = grain.min(), grain.max()
    return ((grain - low) / (high - low) * 255).astype(np.uint8)


def _plain(rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (_SIDE, _SIDE, 3)).copy()


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """A chessboard or stripes of two colours."""
    y, x = np.mgrid[:_SIDE, :_SIDE] // int(rng.integers(4, 40))
    place = (x + y) % 2 if rng.random() < 0.5 else x % 2
    return rng.integers(0, 256, (2, 3), dtype=np.uint8)[place]


def _document(rng: np.random.Generator) -> np.ndarray:
    """Dark words in lines on light paper."""
    paper = tuple(int(v) for v in rng.integers(215, 256, 3))
    page = Image.new("RGB", (_SIDE, _SIDE), paper)
    pen = ImageDraw.Draw(page)
    size = int(rng.integers(8, 18))
    font = ImageFont.load_default(size)
    for top in range(12, _SIDE - 12, int(1.5 * size)):
        pen.text((12, top), " ".join(rng.choice(_WORDS, 9)), fill=(25, 25, 35), font=font)
    return np.asarray(page)


def _chart(rng: np.random.Generator) -> np.ndarray:
    """Coloured bars over an axis."""
    page = Image.new("RGB", (_SIDE, _SIDE), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    bars = int(rng.integers(4, 12))
    width = 220 / bars
    for bar in range(bars):
        left, top = 20 + bar * width, int(rng.integers(20, 200))
        pen.rectangle((left, top, left + 0.7 * width, 230), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen.line((20, 20, 20, 230, 240, 230), fill=(0, 0, 0), width=2)
    return np.asarray(page)


_KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "clouds": _clouds,
    "plain": _plain,
    "pattern": _pattern,
    "document": _document,
    "chart": _chart,
}
