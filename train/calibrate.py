"""What makes a finished run's answers measured ones: a temperature, its doubts judged, and what is familiar to it.

Everything is fitted on the validation split, but for the features of the training images, and judged on images that it
was not fitted to where that makes a difference (the temperature, in folds).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm import tqdm

from mbdcnn import __version__, calibration, runs
from mbdcnn.data.decoded import decoded
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.doubt import Familiarity
from mbdcnn.errors import UserError
from mbdcnn.metrics import fit_temperature, jaccard, score_mask
from mbdcnn.networks import MutualBootstrap, Prediction, binarise, place
from mbdcnn.preprocessing import MASK_THRESHOLD, ImageError, Preprocessing, decode_image, decode_mask, prepare, restore
from train._allocator import keep_memory
from train._calibration_figures import (
    KEPT,
    Seen,
    calibration_figures,
    class_doubts,
    familiarity_figures,
    mask_doubts,
)
from train._foreign import drawn
from train.evaluate import decoders, split_items

PAGE = "calibration.html"
SPLIT = "validation"
_BATCH = 16
_TRAINING_IMAGES = 1000  # evenly spread; their features' covariance has few axes that count
_AXES = 64


def calibrate(
    run: Path, manifest: Manifest, foreign: Sequence[Path] = (), progress: bool = False, *, views: int = 1
) -> dict[str, Any]:
    """Calibrate a run whose three stages are finished; later evaluations and exports use what was found.

    Args:
        run: run folder; gets `calibration.json`, the tensors beside it, and a page.
        manifest: index of the data, with training and validation images.
        foreign: further pictures that are not dermoscopic, to judge the unfamiliarity by.
        progress: show bars on standard error.
        views: of an image that each network is asked about from now on, 1, 2 or 4; their mean is its answer.

    Returns:
        What is in `calibration.json`.

    Raises:
        UserError: a stage is missing, the splits have too few images or labels, or a file cannot be used.
    """
    from train._calibration_page import write_page_of

    keep_memory()
    networks, config = runs.load_networks(run, calibrated=False)
    networks.calibration.views = views
    place(networks, "cuda" if torch.cuda.is_available() else "cpu").eval()
    spec, classes = config.preprocessing, config.network.classes
    items, training = split_items(manifest, SPLIT), split_items(manifest, "training")
    some = training[:: max(1, len(training) // _TRAINING_IMAGES)][:_TRAINING_IMAGES]
    with decoders() as pool:
        seen = _look(networks, spec, classes, manifest, items, pool, progress)
        known = seen.labels >= 0
        _require_labels(seen.labels[known], manifest)
        familiarity = fit_familiarity(_pooled(networks, spec, _images(manifest, some, pool, progress)), seen.pooled)
        others = {name: iter(pictures) for name, pictures in drawn().items()}
        if foreign:
            others["named"] = map(_foreign_picture, foreign)
        strange = {name: _pooled(networks, spec, pictures) for name, pictures in others.items()}
    logits, labels = seen.logits[known], seen.labels[known]
    temperature = fit_temperature(logits, labels)
    document = {
        "mbdcnn": __version__,
        "data": {"name": manifest.root.resolve().name, "fingerprint": manifest.fingerprint},
        "split": SPLIT,
        "views": views,
        "temperature": temperature,
        "calibration": calibration_figures(logits, labels),
        "doubt": {
            "mask": mask_doubts(seen),
            "class": class_doubts(softmax(logits / temperature, axis=1), labels),
        },
        "familiarity": familiarity_figures(familiarity, seen.pooled, strange, len(some)),
    }
    whole = calibration.save(run, document, familiarity)
    masked = np.isfinite(seen.risk)
    write_page_of(
        run / PAGE,
        whole,
        run.resolve().name,
        mask=(seen.expected[masked], seen.risk[masked]),
        diagnosis=(1 - softmax(logits / temperature, axis=1).max(1), (logits.argmax(1) != labels).astype(np.float64)),
        unfamiliarity={
            name: familiarity(torch.from_numpy(pooled))[:, 0].numpy()
            for name, pooled in {SPLIT: seen.pooled, **strange}.items()
        },
    )
    return whole


def fit_familiarity(training: np.ndarray, validation: np.ndarray) -> Familiarity:
    """What is familiar, from pooled features `(M, C)` of training images and `(N, C)` of validation images.

    Raises:
        UserError: there are fewer than three training images.
    """
    axes = min(_AXES, (len(training) - 1) // 2, training.shape[1] - 1)
    if axes < 1:
        raise UserError("Calibration needs at least three training images; add some to the data folder.")
    found = PCA(axes, svd_solver="full").fit(training.astype(np.float64))
    noise = max(float(found.noise_variance_), 1e-9)
    parts = (found.mean_, found.components_, np.maximum(found.explained_variance_, noise), noise, 1.0)
    unscaled = Familiarity(*(torch.tensor(part, dtype=torch.float32) for part in parts))
    limit = np.quantile(unscaled.distance(torch.from_numpy(validation)).numpy(), KEPT)
    return Familiarity(*(torch.tensor(part, dtype=torch.float32) for part in (*parts[:-1], limit)))


def _require_labels(labels: np.ndarray, manifest: Manifest) -> None:
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.min() < 2:
        raise UserError(
            f"{manifest.root} has too few labelled validation images to calibrate on: at least two of each of two "
            "classes are needed; add some, or name other data with --data."
        )


def _look(
    networks: MutualBootstrap,
    spec: Preprocessing,
    classes: tuple[str, ...],
    manifest: Manifest,
    items: Sequence[Item],
    pool: ThreadPoolExecutor,
    progress: bool,
) -> Seen:
    rows: list[tuple[Any, ...]] = []
    answers = _answers(networks, spec, _images(manifest, items, pool, progress))
    for item, (said, i) in zip(items, answers, strict=True):
        assert said.logits is not None
        assert said.pooled is not None
        assert said.mask_doubt is not None
        assert said.lesion_probability is not None
        assert said.coarse_mask is not None
        lesion = said.lesion_probability[i].cpu()
        risk = float("nan")
        if item.mask is not None:
            truth = decoded(decode_mask, manifest, item.mask)
            risk = 1 - score_mask(restore(lesion[0].numpy(), *truth.shape) > MASK_THRESHOLD, truth).JA
        agreement = jaccard(binarise(lesion)[None], said.coarse_mask[i : i + 1].cpu()).item()
        label = classes.index(item.label) if item.label in classes else -1
        rows.append((said.logits[i].cpu(), label, said.pooled[i].cpu(), risk, said.mask_doubt[i].item(), 1 - agreement))
    logits, labels, pooled, risks, expected, disagreement = zip(*rows, strict=True)
    return Seen(
        torch.stack(logits).double().numpy(),
        np.array(labels),
        torch.stack(pooled).numpy(),
        np.array(risks),
        np.array(expected),
        np.array(disagreement),
    )


def _images(
    manifest: Manifest, items: Sequence[Item], pool: ThreadPoolExecutor, progress: bool
) -> Iterator[np.ndarray]:
    """Decoded images, a few ahead of the networks."""
    bar = tqdm(total=len(items), desc="calibrate", unit="image", leave=False, disable=not progress)
    with bar:
        for start in range(0, len(items), _BATCH):
            part = [item.image for item in items[start : start + _BATCH]]
            for image in pool.map(partial(decoded, decode_image, manifest), part):
                bar.update()
                yield image


@torch.inference_mode()
def _answers(
    networks: MutualBootstrap, spec: Preprocessing, images: Iterable[np.ndarray]
) -> Iterator[tuple[Prediction, int]]:
    """For each image, the answer to its batch and its place in it."""
    device = next(networks.parameters()).device
    batch: list[np.ndarray] = []
    for image in images:
        batch.append(prepare(image, spec))
        if len(batch) == _BATCH:
            yield from _each(networks, batch, device)
            batch = []
    if batch:
        yield from _each(networks, batch, device)


def _each(
    networks: MutualBootstrap, batch: Sequence[np.ndarray], device: torch.device
) -> Iterator[tuple[Prediction, int]]:
    said = networks(torch.from_numpy(np.stack(batch)).to(device))
    return ((said, i) for i in range(len(batch)))


def _pooled(networks: MutualBootstrap, spec: Preprocessing, images: Iterable[np.ndarray]) -> np.ndarray:
    """Mask-CN's pooled features `(N, C)`; the last network is not asked."""
    first = MutualBootstrap(networks.coarse_sn, networks.mask_cn, calibration=networks.calibration).eval()
    rows: list[Tensor] = []
    for said, i in _answers(first, spec, images):
        assert said.pooled is not None
        rows.append(said.pooled[i].cpu())
    return torch.stack(rows).numpy()


def _foreign_picture(path: Path) -> np.ndarray:
    try:
        return decode_image(path.read_bytes())
    except OSError as error:
        reason = str(error.strerror)
    except ImageError as error:
        reason = str(error)
    raise UserError(f"{path}: {reason}; take it out of the folder that --foreign names.")
