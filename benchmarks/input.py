"""DALI against PyTorch's DataLoader with torchvision's transforms, from originals of 12 megapixels and from copies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from _measure import alternate, report
from _training import training_step
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from mbdcnn import presets
from mbdcnn.config import AugmentationConfig, Config
from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.prepared import find_copies, prepare
from mbdcnn.data.sample import draw
from train.pipeline import Loader, Sample
from train.sampling import TrainingOrder

WIDTH, HEIGHT, BATCH = 4000, 3000, 16
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CORES = len(os.sched_getaffinity(0))
FASTER = ">= 3" if CUDA else ">= 1"
PRESET = "paper" if CUDA else "compact"
PASS = 256  # images of a pass through copies, which are soon read: 16 batches, so that filling the queue counts little
GOALS = {
    "dali_over_pillow_dataloader_originals": FASTER,
    "dali_over_pillow_dataloader_copies": FASTER,
    "dali_over_tensor_dataloader_originals": FASTER,
    "dali_over_tensor_dataloader_copies": FASTER,
    "dali_copies_over_originals": ">= 5",
    "training_with_loading_over_without": ">= 0.95",
}
Pairs = list[tuple[Path, Path]]


class TorchvisionSet(Dataset[tuple[Tensor, Tensor]]):
    """The loader's operations: central crop and antialiased resize, affine warp, flips, normalisation; image and mask.

    Args:
        pairs: files of images and masks.
        config: its size and ranges.
        pillow: decode and transform with Pillow; otherwise tensors throughout, by torchvision's own decoder.
    """

    def __init__(self, pairs: Pairs, config: Config, pillow: bool) -> None:
        self.pairs, self.pillow, self.spec, self.ranges = pairs, pillow, config.preprocessing, config.augmentation
        self.warp = warp(config.augmentation, config.preprocessing.image_size)
        self.finish = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.spec.mean, self.spec.std)]
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image `(3, S, S)` and mask `(1, S, S)`, both float32."""
        image, mask = self._decoded(*self.pairs[index])
        height, width = v2.functional.get_size(image)
        fraction = self.ranges.crop_min + (1 - self.ranges.crop_min) * torch.rand(()).item()
        size = [self.spec.image_size] * 2
        h, w = round(height * fraction), round(width * fraction)
        crop = ((height - h) // 2, (width - w) // 2, h, w, size)
        image = v2.functional.resized_crop(image, *crop, antialias=True)
        mask = v2.functional.resized_crop(mask, *crop, interpolation=v2.InterpolationMode.NEAREST)
        image, mask = self.warp(image, mask)
        return self.finish(image), (mask > 127).float()

    def _decoded(self, image: Path, mask: Path) -> tuple[object, tv_tensors.Mask]:
        if self.pillow:
            with Image.open(image) as picture, Image.open(mask) as plane:
                return picture.convert("RGB"), tv_tensors.Mask(np.array(plane.convert("L"))[None])
        grey = torchvision.io.ImageReadMode.GRAY
        decode = torchvision.io.decode_image
        return tv_tensors.Image(decode(str(image), "RGB")), tv_tensors.Mask(decode(str(mask), grey))


def warp(ranges: AugmentationConfig, size: int) -> v2.Transform:
    """Rotation, shear, zoom, shift and flips, for image and mask together."""
    shear, shift = float(np.rad2deg(ranges.shear_rad)), ranges.shift_px / size
    affine = v2.RandomAffine(
        ranges.rotation_deg,
        translate=(shift, shift),
        scale=(ranges.zoom_min, ranges.zoom_max),
        shear=(-shear, shear, -shear, shear),
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    return v2.Compose(
        [affine, v2.RandomHorizontalFlip(ranges.horizontal_flip), v2.RandomVerticalFlip(ranges.vertical_flip)]
    )


def torchvision_epoch(pairs: Pairs, config: Config, pillow: bool) -> Callable[[], None]:
    """One pass of a DataLoader with as many workers as there are cores; they live from pass to pass."""
    loader = DataLoader(
        TorchvisionSet(pairs, config, pillow),
        batch_size=BATCH,
        shuffle=True,
        num_workers=CORES,
        persistent_workers=True,
        pin_memory=CUDA,
        multiprocessing_context="forkserver",  # a fork of a process that runs DALI's threads may crash
    )

    def run() -> None:
        for images, masks in loader:
            images.to(DEVICE, non_blocking=True), masks.to(DEVICE, non_blocking=True)

    return run


def dali_batches(pairs: Pairs, config: Config) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Passes of the trainers' own loader with as many threads as there are cores."""
    samples = [Sample(image, (mask,)) for image, mask in pairs]
    order = TrainingOrder(len(samples), BATCH, seed=0)
    loader = Loader(samples, ["truth"], order, config.preprocessing, config.augmentation, 0, DEVICE, CORES)
    return lambda: ((batch.images, batch.planes["truth"]) for batch in loader.epoch(0))


def drain(batches: Callable[[], Iterator[object]]) -> Callable[[], None]:
    """Take every batch and do nothing with it."""

    def run() -> None:
        for _ in batches():
            pass

    return run


def write_originals(folder: Path, count: int) -> None:
    """Drawn lesions of 12 megapixels with a sensor's grain, in the ISIC-2017 layout."""
    images, masks = (folder / name("training") for name in (isic2017.images_folder, isic2017.masks_folder))
    images.mkdir(parents=True)
    masks.mkdir()
    grain = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH, 1)).astype(np.float32)
    for number in range(count):
        picture, lesion = draw("training", number, size=800)
        large = np.asarray(Image.fromarray(picture).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        pixels = (large + np.roll(grain, number, axis=1)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"ISIC_{number:07}.jpg", quality=92)
        truth = Image.fromarray(lesion).resize((WIDTH, HEIGHT)).convert("L")
        truth.save(masks / isic2017.mask_name(f"ISIC_{number:07}"), compress_level=1)


def copied(manifest: Manifest, folder: Path) -> Pairs:
    """What `mbdcnn data prepare` makes of the originals."""
    prepare(manifest, folder)
    copies = find_copies(manifest, folder)
    return [(copies.images[item.sha256], copies.masks[item.mask_sha256 or ""]) for item in manifest.items]


def training(batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> dict[str, Callable[[], None]]:
    """Steps on batches that are loaded meanwhile, and as many on one that is there already."""
    step = training_step(PRESET, DEVICE)
    held = [batch for batch, _ in zip(batches(), range(1), strict=False)] * sum(1 for _ in batches())

    def run(source: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        for images, masks in source():
            step(images, masks)

    return {"with_loading": partial(run, batches), "without_loading": partial(run, lambda: held)}


def measure(quick: bool) -> dict[str, float]:
    """An epoch of each side from the same images; then training steps with and without loading."""
    config = presets.preset(PRESET)
    count, rounds = (16, 3) if quick else (64, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "originals"
        write_originals(folder, count)
        manifest = index_folder(folder)
        originals = [(folder / item.image, folder / (item.mask or "")) for item in manifest.items]
        copies = copied(manifest, folder / "prepared")
        many = copies * (PASS // count)
        large = alternate(
            rounds,
            dali_originals=drain(dali_batches(originals, config)),
            tensors_originals=torchvision_epoch(originals, config, pillow=False),
            pillow_originals=torchvision_epoch(originals, config, pillow=True),
        )
        small = alternate(
            rounds,
            dali_copies=drain(dali_batches(many, config)),
            tensors_copies=torchvision_epoch(many, config, pillow=False),
            pillow_copies=torchvision_epoch(many, config, pillow=True),
        )
        steps = alternate(rounds, **training(dali_batches(copies * 4, config)))
    pillow = {kind: times[f"pillow_{kind}"] / times[f"dali_{kind}"] for kind, times in both(large, small)}
    tensors = {kind: times[f"tensors_{kind}"] / times[f"dali_{kind}"] for kind, times in both(large, small)}
    return {
        **{f"dali_over_pillow_dataloader_{kind}": ratio for kind, ratio in pillow.items()},
        **{f"dali_over_tensor_dataloader_{kind}": ratio for kind, ratio in tensors.items()},
        "dali_copies_over_originals": PASS / count * large["dali_originals"] / small["dali_copies"],
        "training_with_loading_over_without": steps["without_loading"] / steps["with_loading"],
    }


def both(large: dict[str, float], small: dict[str, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """The two sources with their times."""
    yield from (("originals", large), ("copies", small))


if __name__ == "__main__":
    report("input", measure, GOALS)
