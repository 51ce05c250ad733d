"""Class activation maps of several networks over the same images, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from mbdcnn.files import replacing
from train.outline import INK, draw_panel

MapRow = tuple[str, str, np.ndarray, np.ndarray | None, Sequence[tuple[str, np.ndarray]]]

_SIDE = 320  # pixels of the longer side of one picture
_DPI = 100
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def write_map_sheet(path: Path, rows: Sequence[MapRow]) -> None:
    """Draw one image per line: the image, then each map over it, the lesion's true outline on all of them.

    Args:
        path: the PNG.
        rows: image id; its label, perhaps empty; the image `(H, W, 3)` uint8 RGB; its truth `(H, W)` bool or None;
            title and map `(h, w)` of each network, of any size; values below 0 are drawn as 0, above 1 as 1.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("need at least one image")
    shown = [_reduced(image, truth) for _, _, image, truth, _ in rows]
    columns = 1 + max(len(maps) for *_, maps in rows)
    heights = [image.shape[0] / _DPI + 0.3 for image, _ in shown]
    figure = Figure(figsize=(columns * (_SIDE / _DPI + 0.1), sum(heights) + 0.5), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    for line, ((image_id, label, _, _, maps), (image, truth)) in enumerate(zip(rows, shown, strict=True)):
        draw_panel(
            figure.add_subplot(grid[line, 0]),
            " · ".join(filter(None, (image_id, label.replace("_", " ")))),
            image,
            truth,
        )
        for column, (title, cam) in enumerate(maps, start=1):
            draw_panel(figure.add_subplot(grid[line, column]), title, _overlaid(image, cam), truth)
    figure.supxlabel(
        "line: the lesion's true outline; colour: the map, from dark (0) to pale yellow (1)",
        x=0.012,
        ha="left",
        fontsize=9.5,
        color=INK,
    )
    with replacing(path) as part:
        figure.savefig(part, format="png")


def _reduced(image: np.ndarray, truth: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(
        Image.fromarray(image).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    if truth is None:
        return small, None
    plane = Image.fromarray(truth.astype(np.float32))
    return small, np.asarray(plane.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR))


def _overlaid(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """The map in colour over the grey image, the stronger the more opaque."""
    height, width = image.shape[:2]
    plane = Image.fromarray(np.ascontiguousarray(cam, dtype=np.float32))
    evidence = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    grey = image.astype(np.float32) @ _LUMA / 255
    strength = 0.35 + 0.4 * evidence[..., None]
    mixed = (1 - strength) * grey[..., None] + strength * colormaps["inferno"](evidence)[..., :3]
    return (mixed.clip(0, 1) * 255).round().astype(np.uint8)
