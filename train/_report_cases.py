"""Which images a report shows, and how one is drawn: as SVG, so that contours stay sharp at any zoom."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps
from PIL import Image

from mbdcnn.preprocessing import MASK_THRESHOLD, restore
from train._report_rows import Row
from train.protocols import Lesion

_PER_GROUP = 4
_MISCLASSIFIED = 8
_SIDE = 320  # longer side of a picture's pixels: twice its width on a laptop's screen
_JPEG_QUALITY = 82
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's mode L


def choose(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Pick the images worth looking at.

    Returns:
        Image ids by gallery, each image in one gallery of the first three: `best`, `median` and `worst` by
        the final mask's JA (up to four each, the worst first in `worst`), and `misclassified`, the up to eight
        wrong decisions that the network was surest of, surest first. A gallery may be empty.
    """
    ranked = [row for row in rows if row.final is not None]
    ranked.sort(key=lambda row: row.final.JA if row.final else 0.0, reverse=True)
    count = min(_PER_GROUP, max(1, len(ranked) // 3))
    best = ranked[:count]
    worst = ranked[count:][::-1][:count]
    between = ranked[count : len(ranked) - len(worst)]
    start = max(0, (len(between) - count + 1) // 2)
    wrong = [row for row in rows if row.is_misclassified]
    wrong.sort(key=lambda row: 0.0 if row.probabilities is None else -row.probabilities.max())
    galleries = {
        "best": best,
        "median": between[start : start + count],
        "worst": worst,
        "misclassified": wrong[:_MISCLASSIFIED],
    }
    return {name: [row.image_id for row in gallery] for name, gallery in galleries.items()}


@dataclass(frozen=True)
class Case:
    """One image and what the networks made of it, reduced to the report's picture size `(h, w)`.

    Attributes:
        image_id: as in the manifest.
        width: of the image itself, in pixels.
        height: of the image itself, in pixels.
        image: `(h, w, 3)` uint8 RGB.
        truth: `(h, w)` float32 in [0, 1], the share of lesion pixels under each; None without truth.
        coarse: `(h, w)` float32, coarse-SN's lesion probability; None without that network, as the next two.
        enhanced: `(h, w)` float32, enhanced-SN's.
        cam: `(h, w)` float32 in [0, 1], mask-CN's.
    """

    image_id: str
    width: int
    height: int
    image: np.ndarray
    truth: np.ndarray | None
    coarse: np.ndarray | None
    enhanced: np.ndarray | None
    cam: np.ndarray | None

    @classmethod
    def reduced(
        cls,
        image_id: str,
        image: np.ndarray,
        truth: np.ndarray | None,
        coarse: Lesion | None,
        enhanced: Lesion | None,
        cam: np.ndarray | None,
    ) -> Case:
        """Reduce an image `(H, W, 3)`, its truth `(H, W)` bool and what the networks say of it to the picture size."""
        height, width = image.shape[:2]
        scale = min(1.0, _SIDE / max(height, width))
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        small = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BOX))
        share = None
        if truth is not None:
            plane = Image.fromarray(truth.astype(np.uint8) * np.uint8(255))
            share = np.asarray(plane.resize((w, h), Image.Resampling.BOX), dtype=np.float32) / 255
        coarse_map, enhanced_map = (None if lesion is None else lesion(h, w) for lesion in (coarse, enhanced))
        heat = None if cam is None else np.clip(restore(np.nan_to_num(cam), h, w), 0, 1)
        return cls(image_id, width, height, small, share, coarse_map, enhanced_map, heat)


def panels(case: Case, key: str) -> list[tuple[str, str]]:
    """Draw one image's row of pictures.

    Args:
        case: what to draw.
        key: unique on the page; the picture is stored once and drawn again by reference to this.

    Returns:
        Caption and SVG of: the image, the truth's contour, coarse-SN's mask, the CAM over the image, and
        enhanced-SN's contour over the truth's; of the last three those that there are.
    """
    truth = "" if case.truth is None else _contour(case.truth)
    picture = f'<image id="{key}" href="{_jpeg(case.image)}" width="100%" height="100%"/>'
    again = f'<use href="#{key}"/>'
    none = '<text x="50%" y="50%" class="none">no truth</text>' if case.truth is None else ""
    drawn = [
        ("Image", _svg(case, "image", picture)),
        ("Truth", _svg(case, "contour of the true lesion", again + _lines(truth=truth) + none)),
    ]
    if case.coarse is not None:
        filled = _filled(_contour(case.coarse))
        drawn.append(("Coarse mask", _svg(case, "mask of coarse-SN", filled + _lines(truth=truth))))
    if case.cam is not None:
        heat = f'<image href="{_heat(case.image, case.cam)}" width="100%" height="100%"/>'
        drawn.append(("CAM", _svg(case, "class activation map", heat)))
    if case.enhanced is not None:
        lines = _lines(truth=truth, enhanced=_contour(case.enhanced))
        drawn.append(("Enhanced mask", _svg(case, "contour of enhanced-SN over the true one", again + lines)))
    return drawn


def _svg(case: Case, what: str, content: str) -> str:
    h, w = case.image.shape[:2]
    label = escape(f"{case.image_id}: {what}", quote=True)
    return f'<svg viewBox="0 0 {w} {h}" role="img" aria-label="{label}">{content}</svg>'


def _contour(plane: np.ndarray) -> str:
    """Path data of the region where a plane `(h, w)` exceeds the mask threshold, in pixels of that plane."""
    h, w = plane.shape
    # A rim of zeros closes the outline of a lesion that leaves the frame.
    lines = contour_generator(z=np.pad(plane, 1).astype(np.float64)).lines(MASK_THRESHOLD)
    parts = []
    for line in lines:
        points = np.clip(np.asarray(line) - 0.5, 0, (w, h))
        parts.append("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points) + "Z")
    return "".join(parts)


def _lines(**contours: str) -> str:
    # The dark lines, all of them underneath, keep the coloured ones visible on light skin.
    halos = "".join(f'<path class="halo" d="{path}"/>' for path in contours.values() if path)
    return halos + "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in contours.items() if path)


def _filled(path: str) -> str:
    return f'<rect class="ground" width="100%" height="100%"/><path class="mask" d="{path}"/>'


def _heat(image: np.ndarray, cam: np.ndarray) -> str:
    """The CAM in colour over the grey image."""
    grey = image.astype(np.float32) @ _LUMA / 255
    colour = colormaps["inferno"](cam)[..., :3]
    strength = 0.35 + 0.4 * cam[..., None]
    blend = (1 - strength) * grey[..., None] + strength * colour
    return _jpeg((np.clip(blend, 0, 1) * 255).round().astype(np.uint8))


def _jpeg(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
