"""Do the exported networks say what the trained ones say? Measured over the whole chain at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import MASK_THRESHOLD, Preprocessing, prepare, restore
from serve._graphs import GRAPHS

if TYPE_CHECKING:
    from mbdcnn.networks import MutualBootstrap

# The largest difference, or the smallest Jaccard index, that an export may have on any image.
AT_MOST = {"probabilities": 1e-3, "logits": 1e-2, "cam": 1e-2, "lesion_probability": 1e-2}
AT_LEAST = {"coarse_mask_JA": 0.999, "mask_JA": 0.999}
_SEED = 2017


def check_parity(networks: MutualBootstrap, spec: Preprocessing, repository: Path) -> dict[str, object]:
    """Compare ONNX Runtime with PyTorch on drawn lesions and on noise.

    Args:
        networks: the trained networks, in evaluation mode, on the CPU.
        spec: how images become network input.
        repository: holds `<model>/1/model.onnx` of every network.

    Returns:
        `{"images", "max_abs": {...}, "min_JA": {...}, "tolerances": {...}}`.

    Raises:
        UserError: a figure lies outside its tolerance.
    """
    images = _images()
    inputs = np.stack([prepare(image, spec) for image in images])
    with torch.inference_mode():
        said = networks(torch.from_numpy(inputs))
    expected = {
        "probabilities": said.probabilities.numpy(),
        "logits": said.logits.numpy(),
        "cam": said.cam.numpy(),
        "lesion_probability": said.lesion_probability.numpy(),
    }
    found = _run(repository, inputs)
    pairs = [
        ("probabilities", "probabilities"),
        ("logits", "logits"),
        ("cam", "cam"),
        ("lesion_probability", "lesion"),
    ]
    max_abs = {ours: float(np.abs(expected[ours] - found[theirs]).max()) for ours, theirs in pairs}
    agreements = [
        (_native(image, a[0]), _native(image, b[0]))
        for image, a, b in zip(images, expected["lesion_probability"], found["lesion"], strict=True)
    ]
    coarse = zip(said.coarse_mask.numpy() > 0, found["mask_out"] > 0, strict=True)
    min_ja = {"coarse_mask_JA": _smallest(coarse), "mask_JA": _smallest(agreements)}
    _judge(max_abs, min_ja)
    return {
        "images": len(images),
        "max_abs": max_abs,
        "min_JA": min_ja,
        "tolerances": {"max_abs": AT_MOST, "min_JA": AT_LEAST},
    }


def _images() -> list[np.ndarray]:
    """Six drawn lesions of several sizes and two images of noise, always the same."""
    noise = np.random.default_rng(_SEED)
    drawn = [draw("validation", i, size=240 + 40 * i, seed=_SEED)[0] for i in range(6)]
    return [*drawn, *(noise.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((120, 160), (300, 200)))]


def _run(repository: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors of the chain, as the ensemble computes them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # PyTorch's threads share the cores
    tensors: dict[str, np.ndarray] = {"image": inputs}
    for name in GRAPHS:
        path = repository / name / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = [o.name for o in session.get_outputs()]
        feed = {i.name: tensors[i.name] for i in session.get_inputs()}
        tensors |= dict(zip(outputs, session.run(outputs, feed), strict=True))
    return tensors


def _native(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
    return restore(probability, *image.shape[:2]) > MASK_THRESHOLD


def _smallest(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The smallest Jaccard index over pairs of boolean masks; two empty masks agree."""
    scores = []
    for a, b in pairs:
        union = np.logical_or(a, b).sum()
        scores.append(float(np.logical_and(a, b).sum() / union) if union else 1.0)
    return min(scores)


def _judge(max_abs: dict[str, float], min_ja: dict[str, float]) -> None:
    # written so that NaN fails too
    bad = [f"{n} differ by {v:.2g} (at most {AT_MOST[n]:g})" for n, v in max_abs.items() if not v <= AT_MOST[n]]
    bad += [f"{n} is {v:.4f} (at least {AT_LEAST[n]:g})" for n, v in min_ja.items() if not v >= AT_LEAST[n]]
    if bad:
        raise UserError(
            f"The exported networks do not say what the trained ones say: {'; '.join(bad)}. "
            "Nothing was written; check the weights for values that are not finite, or report this with the "
            "versions of torch and onnxruntime."
        )
