"""Do the exported networks say what the trained ones say? Measured over the whole chain at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import MASK_THRESHOLD, Preprocessing, prepare, restore
from serve._form import Form
from serve._graphs import CHAIN
from serve._profiles import FUSED
from serve._sessions import ask, open_network

if TYPE_CHECKING:
    from mbdcnn.networks import MutualBootstrap

# The largest difference on any image, and the smallest Jaccard index of the masks of all images together: one pixel at
# the threshold, which rounding decides, would be much of a small lesion.
AT_MOST = {
    "probabilities": 1e-3,
    "logits": 1e-2,
    "cam": 1e-2,
    "lesion_probability": 1e-2,
    "coarse_probability": 1e-2,
    "mask_doubt": 1e-3,
    "class_doubt": 1e-3,
    "unfamiliarity": 1e-2,
}
AT_LEAST = {"coarse_mask_JA": 0.999, "mask_JA": 0.999}
# Weights that are rounded to 11 bits give somewhat other answers; the scores may change by no more than others' may.
_HALF_AT_MOST = {**dict.fromkeys(AT_MOST, 5e-2), "unfamiliarity": 1e-1}
_HALF_AT_MOST |= dict.fromkeys(("probabilities", "class_doubt", "mask_doubt"), 1e-2)
_HALF_AT_LEAST = {"coarse_mask_JA": 0.99, "mask_JA": 0.99}
_TENSORS = {"lesion_probability": "lesion", "coarse_probability": "coarse"}  # which the graphs call otherwise
_SEED = 2017


def check_parity(
    networks: MutualBootstrap,
    spec: Preprocessing,
    repository: Path,
    version: int = 1,
    form: Form = Form(),  # noqa: B008 - frozen
) -> dict[str, object]:
    """Compare ONNX Runtime with PyTorch on drawn lesions and on noise, network by network and in one graph.

    Args:
        networks: the trained networks, in evaluation mode, on the CPU.
        spec: how images become network input.
        repository: holds `<model>/<version>/model.onnx` of every network.
        version: of the networks.
        form: of the networks.

    Returns:
        `{"images", "max_abs": {...}, "JA": {...}, "fused": {...}, "tolerances": {...}}`; of `fused` the same two
        again, or None without that graph.

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
        "coarse_probability": said.coarse_probability.numpy(),
        "mask_doubt": said.mask_doubt.numpy(),
        "class_doubt": said.class_doubt.numpy(),
        "unfamiliarity": said.unfamiliarity.numpy(),
    }
    half = form.weights == "float16"
    at_most, at_least = (_HALF_AT_MOST, _HALF_AT_LEAST) if half else (AT_MOST, AT_LEAST)
    coarse = said.coarse_mask.numpy() > 0
    chain = _compare(images, expected, coarse, run_chain(repository, version, inputs))
    _judge(**chain, at_most=at_most, at_least=at_least)
    fused = None
    if form.fused:
        one = ask(open_network(repository, FUSED, version), {"image": inputs})
        fused = _compare(images, expected, coarse, {**one, "cam": one["cam_out"]})
        _judge(**fused, at_most=at_most, at_least=at_least)
    return {
        "images": len(images),
        **chain,
        "fused": fused,
        "tolerances": {"max_abs": at_most, "JA": at_least},
    }


def _compare(
    images: Sequence[np.ndarray], expected: dict[str, np.ndarray], coarse: np.ndarray, found: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """`{"max_abs", "JA"}` of a graph's tensors; the graph of all networks keeps some to itself."""
    differences = {
        name: np.abs(told - found[_TENSORS.get(name, name)])
        for name, told in expected.items()
        if _TENSORS.get(name, name) in found
    }
    max_abs = {name: float(difference.max()) for name, difference in differences.items()}
    agreements = [
        (_native(image, a[0]), _native(image, b[0]))
        for image, a, b in zip(images, expected["lesion_probability"], found["lesion"], strict=True)
    ]
    coarse_pairs = zip(coarse, found["mask_out"] > 0, strict=True)
    ja = {"coarse_mask_JA": _pooled(coarse_pairs), "mask_JA": _pooled(agreements)}
    return {"max_abs": max_abs, "JA": ja}


def _images() -> list[np.ndarray]:
    """Six drawn lesions of several sizes and two images of noise, always the same."""
    noise = np.random.default_rng(_SEED)
    drawn = [draw("validation", i, size=240 + 40 * i, seed=_SEED)[0] for i in range(6)]
    return [*drawn, *(noise.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((120, 160), (300, 200)))]


def run_chain(repository: Path, version: int, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors of the chain for images `(B, 3, S, S)`, as the ensemble computes them."""
    tensors: dict[str, np.ndarray] = {"image": inputs}
    for name in CHAIN:
        tensors |= ask(open_network(repository, name, version), tensors)
    return tensors


def _native(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
    return restore(probability, *image.shape[:2]) > MASK_THRESHOLD


def _pooled(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The Jaccard index of all pixels of pairs of boolean masks; empty masks agree."""
    both, either = 0, 0
    for a, b in pairs:
        both += int(np.logical_and(a, b).sum())
        either += int(np.logical_or(a, b).sum())
    return both / either if either else 1.0


def _judge(
    max_abs: Mapping[str, float], JA: Mapping[str, float], at_most: Mapping[str, float], at_least: Mapping[str, float]
) -> None:
    # written so that NaN fails too
    bad = [f"{n} differ by {v:.2g} (at most {at_most[n]:g})" for n, v in max_abs.items() if not v <= at_most[n]]
    bad += [f"{n} is {v:.4f} (at least {at_least[n]:g})" for n, v in JA.items() if not v >= at_least[n]]
    if bad:
        raise differ(bad)


def differ(clauses: Sequence[str]) -> UserError:
    """The refusal of an export that says other things than the trained networks."""
    return UserError(
        f"The exported networks do not say what the trained ones say: {'; '.join(clauses)}. "
        "Nothing was written; check the weights for values that are not finite, or report this with the "
        "versions of torch and onnxruntime."
    )
