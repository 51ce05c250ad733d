"""Do the exported networks score as the trained ones do? Measured on some of the run's own validation images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mbdcnn.data.decoded import decoded
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.layout import MANIFEST
from mbdcnn.metrics import classification_scores, score_mask
from mbdcnn.preprocessing import MASK_THRESHOLD, Preprocessing, decode_image, decode_mask, prepare, restore
from serve._parity import differ, run_chain

if TYPE_CHECKING:
    from mbdcnn.networks import MutualBootstrap

# What an export may change at most. A sample's AUC moves in steps of one pair of images, which two almost equal
# probabilities can swap: 64 images have about a thousand pairs.
AT_MOST = {"coarse_JA": 1e-3, "enhanced_JA": 1e-3, "mean_AUC": 5e-3}
SAMPLE = 64
_BATCH = 16
_MEND = "index the data again, or name other data with --data"


def validation_images(run: Path, data: Path | None) -> Manifest | str:
    """The data set to take the sample from.

    Args:
        run: whose manifest names the data that it was trained with.
        data: a data folder that stands for it; None for the run's own.

    Returns:
        The data set's index, or a sentence that says why there is nothing to measure on.

    Raises:
        UserError: `data` cannot be used.
    """
    if data is not None:
        from mbdcnn.data.index import index_folder

        manifest = index_folder(data)
        if not manifest.select("validation"):
            raise UserError(f"{data} has no images of the split 'validation' to check the export on; change --data.")
        return manifest
    try:
        manifest = Manifest.load(run / MANIFEST)
    except UserError:
        return f"{run / MANIFEST} is gone"
    sample = _sample(manifest)
    if not sample:
        return f"{manifest.root} has no images of the split 'validation'"
    paths = [path for item in sample for path in (item.image, item.mask) if path is not None]
    gone = next((manifest.root / path for path in paths if not (manifest.root / path).is_file()), None)
    return manifest if gone is None else f"{gone} is gone"


def check_scores(
    networks: MutualBootstrap, spec: Preprocessing, repository: Path, version: int, manifest: Manifest
) -> dict[str, Any]:
    """Compare the scores of ONNX Runtime's answers with those of PyTorch's.

    Args:
        networks: the trained networks, in evaluation mode, on the CPU.
        spec: how images become network input.
        repository: holds `<model>/<version>/model.onnx` of every network.
        version: of the networks.
        manifest: whose validation images are asked about, at most `SAMPLE` of them.

    Returns:
        `{"images", "pytorch": {...}, "onnxruntime": {...}, "at_most": {...}}` with the scores coarse_JA, enhanced_JA
        and mean_AUC; one that the sample cannot give is None.

    Raises:
        UserError: a score changes by more than it may, or an image cannot be decoded.
    """
    assert networks.mask_cn is not None
    items, classes = _sample(manifest), networks.mask_cn.classes
    sides = {"pytorch": _Side(classes), "onnxruntime": _Side(classes)}
    for batch in _batches(items):
        inputs = np.stack([prepare(decoded(decode_image, manifest, item.image, _MEND), spec) for item in batch])
        with torch.inference_mode():
            said = networks(torch.from_numpy(inputs))
        found = run_chain(repository, version, inputs)
        truths = [None if item.mask is None else decoded(decode_mask, manifest, item.mask, _MEND) for item in batch]
        sides["pytorch"].add(
            batch, truths, said.coarse_mask.numpy(), said.lesion_probability.numpy(), said.probabilities.numpy()
        )
        sides["onnxruntime"].add(batch, truths, found["mask_out"], found["lesion"], found["probabilities"])
    scores = {name: side.scores() for name, side in sides.items()}
    trained, exported = scores["pytorch"], scores["onnxruntime"]
    bad = []
    for name, most in AT_MOST.items():
        before, after = trained[name], exported[name]
        if before is not None and not (after is not None and abs(after - before) <= most):  # NaN fails too
            bad.append(f"{name} changes from {before:.4f} to {after:.4f} (at most by {most:g})")
    if bad:
        raise differ(bad)
    return {"images": len(items), **scores, "at_most": AT_MOST}


class _Side:
    """Scores of one runtime's answers."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._coarse: list[float] = []
        self._enhanced: list[float] = []
        self._labels: list[int] = []
        self._probabilities: list[np.ndarray] = []

    def add(
        self,
        items: Sequence[Item],
        truths: Sequence[np.ndarray | None],
        coarse: np.ndarray,
        lesion: np.ndarray,
        probabilities: np.ndarray,
    ) -> None:
        """Score a batch: masks `(B, 1, S, S)` in {0, 1}, lesion probabilities of that shape, classes `(B, n)`."""
        for item, truth, *maps, of_classes in zip(items, truths, coarse, lesion, probabilities, strict=True):
            if truth is not None:
                for plane, scores in zip(maps, (self._coarse, self._enhanced), strict=True):
                    native = restore(plane[0].astype(np.float32), *truth.shape)
                    scores.append(score_mask(native > MASK_THRESHOLD, truth).JA)
            if item.label in self._classes:
                self._labels.append(self._classes.index(item.label))
                self._probabilities.append(of_classes)

    def scores(self) -> dict[str, float | None]:
        """Averages over the sample; None where it has no mask, or not both sides of each class."""
        auc = None
        if self._labels and np.isfinite(self._probabilities).all():
            labels, probabilities = np.array(self._labels), np.array(self._probabilities)
            auc = classification_scores(probabilities, labels, self._classes)["mean_AUC"]
        coarse, enhanced = (float(np.mean(s)) if s else None for s in (self._coarse, self._enhanced))
        return {"coarse_JA": coarse, "enhanced_JA": enhanced, "mean_AUC": auc}


def _sample(manifest: Manifest) -> Sequence[Item]:
    """At most `SAMPLE` validation images, evenly spread."""
    items = manifest.select("validation")
    return [items[i * len(items) // SAMPLE] for i in range(SAMPLE)] if len(items) > SAMPLE else items


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
