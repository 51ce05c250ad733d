"""A sheet of augmented training images with their masks, to judge by eye what the networks get to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from mbdcnn.config import AugmentationConfig, Config
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.preprocessing import Preprocessing
from train.outline import INK, as_pictures, draw_panel
from train.pipeline import LoadedBatch, Loader, Sample
from train.sampling import EvaluationOrder

_SIDE = 2.3  # inches of one picture
_DPI = 100


def write_sheet(path: Path, manifest: Manifest, config: Config, split: str, n_images: int, n_variants: int) -> int:
    """Draw images of a split, one per line: the frame as the networks see it in validation, then augmented variants.

    All come out of the trainers' own DALI pipeline. The outline is the mask that took the image's way.

    Args:
        path: the PNG.
        manifest: data set.
        config: its preprocessing, its ranges of augmentation and its seed.
        split: whose images.
        n_images: at most; those with a mask, the classes in turn.
        n_variants: of each image.

    Returns:
        How many images there are on the sheet.

    Raises:
        UserError: no image of the split has a mask, or a count is below 1.
    """
    if min(n_images, n_variants) < 1:
        raise UserError("--images and --variants are at least 1.")
    items = list(_in_turn(manifest.select(split, masks=True)))[:n_images]
    if not items:
        raise UserError(f"{manifest.root} has no image of the split {split} with a mask to show; name another --split.")
    samples = [Sample(manifest.root / item.image, (manifest.root / (item.mask or ""),)) for item in items]
    frames = _batches(samples, 1, config, None)
    variants = _batches([s for s in samples for _ in range(n_variants)], n_variants, config, config.augmentation)

    columns = 1 + n_variants
    figure = Figure(figsize=(columns * (_SIDE + 0.1), len(items) * (_SIDE + 0.3) + 0.4), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(len(items), columns)
    for line, (item, *batches) in enumerate(zip(items, frames, variants, strict=True)):
        panels = [panel for batch in batches for panel in _pictures(batch, config.preprocessing)]
        names = [" · ".join(filter(None, (item.image_id, (item.label or "").replace("_", " ")))), *[""] * n_variants]
        for column, (name, (picture, mask)) in enumerate(zip(names, panels, strict=True)):
            draw_panel(figure.add_subplot(grid[line, column]), name, picture, mask)
    note = f"first column: the whole frame; the others: augmented (seed {config.seed}); line: the lesion's mask"
    figure.supxlabel(note, x=0.012, ha="left", fontsize=9.5, color=INK)
    with replacing(path) as part:
        figure.savefig(part, format="png")
    return len(items)


def _in_turn(items: Sequence[Item]) -> Iterator[Item]:
    """The first of each class, the second of each, and so on."""
    labels = sorted({item.label or "" for item in items})
    for row in zip_longest(*([item for item in items if (item.label or "") == label] for label in labels)):
        yield from (item for item in row if item is not None)


def _batches(
    samples: Sequence[Sample], size: int, config: Config, augmentation: AugmentationConfig | None
) -> Iterator[LoadedBatch]:
    order, device = EvaluationOrder(len(samples), size), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Loader(samples, ["truth"], order, config.preprocessing, augmentation, config.seed, device).epoch(0)


def _pictures(batch: LoadedBatch, spec: Preprocessing) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each image `(S, S, 3)` uint8 with the normalisation undone, and its mask `(S, S)`."""
    yield from zip(as_pictures(batch.images, spec), batch.planes["truth"][:, 0].cpu().numpy(), strict=True)
