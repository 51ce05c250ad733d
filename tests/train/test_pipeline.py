"""What DALI hands to the trainers: paired geometry, determinism, parity with the preprocessing specification."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mbdcnn.config import AugmentationConfig
from mbdcnn.data.manifest import Manifest
from mbdcnn.preprocessing import Preprocessing, decode_image, prepare
from train.augmentation import draw_colour, draw_geometry
from train.graph import sample_graph
from train.pipeline import LoadedBatch, Loader, Sample
from train.sampling import EvaluationOrder, TrainingOrder

SPEC = Preprocessing(64, mean=(0.5, 0.4, 0.6), std=(0.5, 0.25, 0.3))
CPU = torch.device("cpu")
COLOURS = {"brightness": 0.3, "contrast": 0.2, "saturation": 0.4, "hue_deg": 10.0}
STILL = AugmentationConfig(
    crop_probability=0, rotation_deg=0, shear_rad=0, shift_px=0, zoom_max=1, horizontal_flip=0, vertical_flip=0
)


def samples(manifest: Manifest, split: str = "training") -> list[Sample]:
    items = manifest.select(split)
    return [
        Sample(manifest.root / i.image, (manifest.root / (i.mask or ""),), manifest.classes.index(i.label))
        for i in items
    ]


def loader(manifest: Manifest, augmentation: AugmentationConfig | None, threads: int = 1, seed: int = 0) -> Loader:
    order = TrainingOrder(24, 8, seed=2)
    return Loader(samples(manifest), ["truth"], order, SPEC, augmentation, seed, CPU, threads)


def epoch(source: Loader, number: int) -> list[LoadedBatch]:
    return list(source.epoch(number))


def test_validation_batches_equal_the_specification(sample: Manifest) -> None:
    rows = samples(sample, "validation")
    source = Loader(rows, ["truth"], EvaluationOrder(len(rows), 4), SPEC, None, 0, CPU)
    batches = epoch(source, 0)
    assert [len(b.images) for b in batches] == [4, 4, 1]
    images = torch.cat([b.images for b in batches]).numpy()
    expected = np.stack([prepare(decode_image(r.image.read_bytes()), SPEC) for r in rows])
    levels = np.abs(images - expected) * np.array(SPEC.std)[:, None, None] * 255
    assert levels.max() <= 3  # JPEG decoders and 8-bit rounding between the two resize passes
    assert levels.mean() < 0.5
    assert torch.cat([b.labels for b in batches]).tolist() == [r.label for r in rows]
    assert torch.cat([b.indices for b in batches]).tolist() == list(range(9))


def test_masks_stay_binary_and_share_the_image_geometry(tmp_path: Path) -> None:
    # an image that is its own mask: wherever the geometry takes it, both must stay together
    rows = []
    for number in range(24):
        pixels = np.zeros((90, 120), np.uint8)
        pixels[20 + number : 60, 30 : 100 - number] = 255
        path = tmp_path / f"square{number}.png"
        Image.fromarray(pixels).convert("RGB").save(path)
        rows.append(Sample(path, (path,)))
    source = Loader(rows, ["truth"], TrainingOrder(24, 8, 0), SPEC, AugmentationConfig(shift_px=5), 0, CPU)
    (still,) = Loader(rows, ["truth"], EvaluationOrder(24, 24), SPEC, None, 0, CPU).epoch(0)
    overlaps = []
    for batch in epoch(source, 0):
        truth = batch.planes["truth"]
        assert truth.unique().tolist() == [0, 1]
        image = batch.images * torch.tensor(SPEC.std)[:, None, None] + torch.tensor(SPEC.mean)[:, None, None]
        agree = ((image[:, :1] > 0.5) == (truth > 0.5)).float().mean((1, 2, 3))
        assert agree.min() > 0.95  # nearest against linear differs by a pixel along the edges
        before = still.planes["truth"][batch.indices]
        overlaps += ((truth * before).sum((1, 2, 3)) / (truth + before).clamp(max=1).sum((1, 2, 3))).tolist()
    assert max(overlaps) < 0.99  # every sample was moved
    assert min(overlaps) < 0.5


def test_geometry_is_the_matrix_that_was_drawn(sample: Manifest) -> None:
    flip = replace(STILL, horizontal_flip=1.0)
    for still, flipped in zip(epoch(loader(sample, STILL), 0), epoch(loader(sample, flip), 0), strict=True):
        torch.testing.assert_close(flipped.planes["truth"], still.planes["truth"].flip(3))
        torch.testing.assert_close(flipped.images, still.images.flip(3), atol=0.02, rtol=0)


def pixels(batch: LoadedBatch) -> torch.Tensor:
    """Images `(B, 3, S, S)` as they were before they were normalised, 0 to 255."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (SPEC.mean, SPEC.std))
    return 255 * (batch.images * std + mean)


def test_colours_change_and_nothing_else(sample: Manifest) -> None:
    bright, grey = replace(STILL, brightness=0.3), replace(STILL, saturation=0.9)
    for plain, brightened, faded in zip(*(epoch(loader(sample, c), 0) for c in (STILL, bright, grey)), strict=True):
        torch.testing.assert_close(brightened.planes["truth"], plain.planes["truth"], rtol=0, atol=0)
        for before, after in zip(pixels(plain), pixels(brightened), strict=True):
            factor = (after / before)[(before > 40) & (before < 190)].median()  # brighter ones may be cut at 255
            assert 0.7 <= factor <= 1.3
            torch.testing.assert_close(after, (before * factor).clamp(max=255), rtol=0.02, atol=1)
        luminance = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        weighted = [(luminance * pixels(batch)).sum(1) for batch in (plain, faded)]
        assert (weighted[1] - weighted[0]).abs().mean() < 1  # but where a channel would leave its range
        assert (pixels(faded) - pixels(plain)).abs().max() > 10
    moved, recoloured = (
        epoch(loader(sample, config), 0) for config in (AugmentationConfig(), AugmentationConfig(**COLOURS))
    )
    for a, b in zip(moved, recoloured, strict=True):
        torch.testing.assert_close(a.planes["truth"], b.planes["truth"], rtol=0, atol=0)
        assert not torch.equal(a.images, b.images)


def test_drawn_colours_stay_in_their_ranges() -> None:
    config = AugmentationConfig(**COLOURS)
    drawn = np.stack([draw_colour(config, np.random.default_rng(i)) for i in range(500)])
    limits = np.array(list(COLOURS.values()))
    offsets = np.abs(drawn - [1, 1, 1, 0])
    assert (offsets <= limits + 1e-6).all()
    assert (offsets.max(0) > 0.95 * limits).all()
    still = draw_colour(AugmentationConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(still, [1, 1, 1, 0])


def test_batches_depend_on_seed_and_epoch_alone(sample: Manifest) -> None:
    augmentation = AugmentationConfig(**COLOURS)
    first = loader(sample, augmentation, threads=1)
    wanted = [epoch(first, 0), epoch(first, 1)]
    other = loader(sample, augmentation, threads=3)
    for number in (1, 0):  # in another order, with other threads: as after a resume
        for a, b in zip(wanted[number], epoch(other, number), strict=True):
            torch.testing.assert_close(a.images, b.images, rtol=0, atol=0)
            torch.testing.assert_close(a.planes["truth"], b.planes["truth"], rtol=0, atol=0)
    reseeded = epoch(loader(sample, augmentation, seed=1), 0)
    assert not torch.equal(reseeded[0].images, wanted[0][0].images)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_shards_see_the_samples_and_the_geometry_of_the_whole(sample: Manifest, world: int) -> None:
    augmentation = AugmentationConfig()
    rows = samples(sample)[:22]  # 22 in batches of 8 and shares of 1 to 4: neither comes out even
    whole, *shares = (
        epoch(Loader(rows, ["truth"], TrainingOrder(22, 8, 2, rank, of), SPEC, augmentation, 0, CPU), 0)
        for rank, of in [(0, 1), *((rank, world) for rank in range(world))]
    )
    assert sorted(torch.cat([b.indices for b in whole]).tolist()) == list(range(22))
    for step, batch in enumerate(whole):
        own = [share[step] for share in shares]
        torch.testing.assert_close(torch.cat([b.images for b in own]), batch.images, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([b.planes["truth"] for b in own]), batch.planes["truth"], rtol=0, atol=0)
        mean = sum(b.weight * b.images.mean() for b in own) / world
        torch.testing.assert_close(mean, batch.images.mean())


@pytest.mark.parametrize("first", [1, 2])
def test_a_loader_that_begins_within_an_epoch_goes_on_with_the_same_batches(sample: Manifest, first: int) -> None:
    augmentation = AugmentationConfig()
    whole = epoch(loader(sample, augmentation), 3)
    resumed = loader(sample, augmentation, threads=2)
    for rest in (resumed.epoch(3, first), resumed.epoch(3, first)):  # the second after an epoch that was left
        for batch in whole[first:]:
            again = next(rest)
            torch.testing.assert_close(again.images, batch.images, rtol=0, atol=0)
            torch.testing.assert_close(again.indices, batch.indices)
            if rest is not resumed:
                break


def test_a_whole_image_is_decoded_no_further_than_the_crop_needs(tmp_path: Path) -> None:
    """Cropping while decoding gives the pixels of cropping afterwards."""
    rng = np.random.default_rng(0)
    rows = []
    for number, size in enumerate([(300, 400), (401, 299), (64, 64), (80, 1000)]):
        path = tmp_path / f"{number}.jpg"
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
        rows.append(Sample(path))
    order, cropped = TrainingOrder(4, 4, 0), replace(STILL, crop_probability=1.0)
    (sliced,) = Loader(rows, [], order, SPEC, cropped, 0, CPU).epoch(0)
    # planes that are computed need the whole frame, and so have it decoded
    (whole,) = Loader(rows, [], order, SPEC, cropped, 0, CPU, computed={"guide": lambda b: b.images[:, :1]}).epoch(0)
    levels = (sliced.images - whole.images).abs() * torch.tensor(SPEC.std)[:, None, None] * 255
    assert levels.max() <= 1.01
    assert levels.mean() < 0.01


def test_computed_planes_equal_stored_ones(sample: Manifest, tmp_path: Path) -> None:
    """A mask made of the frame, stored and read back with the image or computed with the batch, is the same mask."""

    def segment(batch: LoadedBatch) -> torch.Tensor:
        return torch.sigmoid(4 * batch.images.mean(1, keepdim=True))

    rows = samples(sample)
    (frames,) = Loader(rows, [], EvaluationOrder(24, 24), SPEC, None, 0, CPU).epoch(0)
    stored = []
    for row, mask in zip(rows, segment(frames) > 0.5, strict=True):
        path = tmp_path / f"{row.image.stem}.png"
        Image.fromarray(mask[0].numpy().astype(np.uint8) * 255).save(path)
        stored.append(Sample(row.image, (path,), row.label))
    for augmentation, order in (
        (AugmentationConfig(**COLOURS), TrainingOrder(24, 10, 1)),
        (None, EvaluationOrder(24, 10)),
    ):
        read = Loader(stored, ["guide"], order, SPEC, augmentation, 0, CPU)
        computed = Loader(rows, ["truth"], order, SPEC, augmentation, 0, CPU, computed={"guide": segment})
        for a, b in zip(epoch(read, 0), epoch(computed, 0), strict=True):
            assert 0.1 < a.planes["guide"].mean() < 0.9
            assert set(b.planes) == {"truth", "guide"}
            torch.testing.assert_close(b.planes["guide"], a.planes["guide"], rtol=0, atol=0)


def test_drawn_geometry_stays_in_its_ranges() -> None:
    config = AugmentationConfig(crop_probability=0.5)
    drawn = [draw_geometry(config, 224, np.random.default_rng(i)) for i in range(500)]
    starts = np.array([g.crop_start[0] for g in drawn])
    assert 0.4 < (starts > 0).mean() < 0.6
    assert starts.max() <= 0.25
    assert all(g.crop_start[0] + g.crop_end[1] == pytest.approx(1) for g in drawn)
    for g in drawn:
        # the image centre moves by the shift alone
        centre = np.linalg.solve(g.matrix[:, :2], np.array([112, 112]) - g.matrix[:, 2])
        assert np.abs(centre - 112).max() <= config.shift_px + 1e-2
        area = 1 / abs(np.linalg.det(g.matrix[:, :2]))
        assert 0.98 <= area <= 1.1**2 * 1.02


def test_the_same_definition_makes_the_gpu_graph() -> None:
    """Without a GPU the graph can be serialised but not run: mixed decoding, every later step on the GPU."""
    cpu, gpu = (
        sample_graph(
            source=lambda _: (),
            n_planes=2,
            spec=SPEC,
            augment=True,
            recolour=True,
            upright=False,
            gpu=on_gpu,
            batch_size=4,
            num_threads=1,
            device_id=None,
        ).serialize()
        for on_gpu in (False, True)
    )
    assert gpu.count(b"mixed") == cpu.count(b"mixed") + 1  # once in both: the name of a default
    assert gpu.count(b"gpu") > cpu.count(b"gpu")
    for step in (b"Resize", b"ColorTwist", b"WarpAffine", b"CropMirrorNormalize"):
        assert gpu.count(step) == cpu.count(step) > 0
