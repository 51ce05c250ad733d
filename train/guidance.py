"""Masks that guide mask-CN, on disk: what one stage hands to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from mbdcnn.config import Config
from mbdcnn.data.manifest import Item
from mbdcnn.files import replacing
from mbdcnn.layout import coarse_masks_folder, round_folder
from mbdcnn.networks import binarise
from train.pipeline import Loader, Sample, Segment
from train.processes import Process
from train.sampling import EvaluationOrder


def guiding_folder(run: Path, config: Config, round_number: int) -> Path:
    """Where the masks lie that guide a round's mask-CN: coarse ones in the first, then the round before's enhanced."""
    if round_number > 1:
        return round_folder(run, round_number - 1) / "enhanced" / "masks"
    return coarse_masks_folder(run, config.bootstrap.coarse_folds)


def mask_file(folder: Path, item: Item) -> Path:
    """Where an image's mask lies; the content hash keeps a mask from outliving a changed image."""
    return folder / item.split / f"{item.image_id}-{item.sha256[:12]}.png"


def write_masks(
    folder: Path,
    items: Sequence[Item],
    load: Callable[[], Segment],
    sample: Callable[[Item], Sample],
    planes: Sequence[str],
    config: Config,
    process: Process,
    computed: Mapping[str, Segment] | None = None,
) -> None:
    """Segment the images whose mask is not there yet.

    Masks are 8-bit PNG of the network's size, 0 or 255.

    Args:
        folder: to write into.
        items: to segment.
        load: gives what segments a batch, on the device of `process`; called only where masks are missing.
        sample: the files of an item.
        planes: names of the masks in `sample`.
        config: of the run.
        process: this one; the work is shared.
        computed: further masks that `load` needs, as the loader makes them.
    """
    # Whole batches, cut from all items: an image's mask depends, in its last bits, on the batch that it is computed in,
    # and must not on where a former call was interrupted.
    size = config.coarse.batch_size
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    missing = {file for item in items if not (file := mask_file(folder, item)).is_file()}
    process.barrier()  # nobody writes before everybody has looked
    if not missing:
        return
    begun = [batch for batch in batches if any(mask_file(folder, item) in missing for item in batch)]
    own = [item for batch in begun[process.rank :: process.world] for item in batch]
    for item in own:
        mask_file(folder, item).parent.mkdir(parents=True, exist_ok=True)
    if own:
        segment = load()
        order = EvaluationOrder(len(own), size)
        samples = [sample(item) for item in own]
        loader = Loader(samples, planes, order, config.preprocessing, None, config.seed, process.device, 1, computed)
        bar = tqdm(total=len(own), desc=folder.name, leave=False, disable=not process.is_first or None)
        for batch in loader.epoch(0):
            with torch.no_grad():
                masks = binarise(segment(batch)).mul(255).byte().cpu().numpy()
            for index, mask in zip(batch.indices.tolist(), masks, strict=True):
                if (file := mask_file(folder, own[index])) in missing:
                    with replacing(file) as part:
                        Image.fromarray(mask[0]).save(part, format="PNG")
            bar.update(len(masks))
        bar.close()
    process.barrier()
