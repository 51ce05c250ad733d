"""Coarse masks on disk: what stage 1 hands to stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from mbdcnn import runs
from mbdcnn.config import Config
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.files import replacing
from mbdcnn.networks import binarise, place
from train.pipeline import Loader, Sample
from train.processes import Process
from train.sampling import EvaluationOrder


def coarse_mask_file(run: Path, item: Item) -> Path:
    """Where an image's coarse mask lies; the content hash keeps a mask from outliving a changed image."""
    return run / "coarse" / "masks" / item.split / f"{item.image_id}-{item.sha256[:12]}.png"


def write_coarse_masks(run: Path, manifest: Manifest, items: Sequence[Item], config: Config, process: Process) -> None:
    """Let the trained coarse-SN segment images whose coarse mask is not there yet.

    Masks are 8-bit PNG of the network's size, 0 or 255.

    Args:
        run: run folder with a finished stage `coarse`.
        manifest: that the items are from.
        items: to segment.
        config: of the run.
        process: this one; the work is shared.
    """
    missing = [i for i in items if not coarse_mask_file(run, i).is_file()]
    process.barrier()  # nobody writes before everybody has looked
    if not missing:
        return
    own = missing[process.rank :: process.world]
    for item in own:
        coarse_mask_file(run, item).parent.mkdir(parents=True, exist_ok=True)
    if own:
        network = place(runs.load_stage(run, "coarse"), process.device)
        samples = [Sample(manifest.root / item.image) for item in own]
        order = EvaluationOrder(len(own), config.coarse.batch_size)
        loader = Loader(samples, [], order, config.preprocessing, None, config.seed, process.device)
        bar = tqdm(total=len(own), desc="coarse masks", leave=False, disable=not process.is_first or None)
        for batch in loader.epoch(0):
            with torch.no_grad():
                masks = binarise(network(batch.images)).mul(255).byte().cpu().numpy()
            for index, mask in zip(batch.indices.tolist(), masks, strict=True):
                with replacing(coarse_mask_file(run, own[index])) as part:
                    Image.fromarray(mask[0]).save(part, format="PNG")
            bar.update(len(masks))
        bar.close()
    process.barrier()
