"""Figure 7: the same images with the activation maps of several classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mbdcnn import runs
from mbdcnn.data.manifest import Manifest
from mbdcnn.preprocessing import decode_image, decode_mask, prepare
from train.reproduce.render import MapRow, write_map_sheet

PER_CLASS = 2


def draw_maps(path: Path, manifest: Manifest, split: str, runs_by_title: Sequence[tuple[str, Path]]) -> None:
    """Draw the first images of each class with each run's map of the class that it predicts.

    Args:
        path: the PNG.
        manifest: data set.
        split: of the images.
        runs_by_title: column title and run folder with a finished mask-CN.
    """
    items = manifest.select(split, masks=True, labels=True)
    chosen = [i for name in manifest.classes for i in [i for i in items if i.label == name][:PER_CLASS]]
    loaded = [(title, *runs.load_finished(run)) for title, run in runs_by_title]
    rows: list[MapRow] = []
    for item in chosen:
        image = decode_image(manifest.read(item.image))
        maps = []
        for title, networks, config in loaded:
            with torch.inference_mode():
                said = networks(torch.from_numpy(prepare(image, config.preprocessing))[None])
            predicted = config.network.classes[int(said.logits.argmax())].replace("_", " ")
            maps.append((f"{title}: {predicted}", said.cam[0, 0].numpy()))
        truth = decode_mask(manifest.read(item.mask)) if item.mask else None
        rows.append((item.image_id, item.label or "", image, truth, maps))
    write_map_sheet(path, rows)
