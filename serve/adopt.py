"""From a model repository back to a run folder, to train its networks on.

The graphs of a repository hold convolutions into which the batch norm behind them was folded. Training wants both, so
they are taken apart again: the filters get the norm that they would begin a training with, and batch norm the mean and
the variance that it finds on training images, so that the networks answer as before and learn as when they were new.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.config import STAGES, Config
from mbdcnn.data.decoded import decoded
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.networks import MutualBootstrap
from mbdcnn.networks.backbone import tensors_of
from mbdcnn.preprocessing import decode_image, prepare
from mbdcnn.presets import PRESETS, preset
from serve.verify import verify

MODELS = dict(zip(STAGES, ("coarse_sn", "mask_cn", "enhanced_sn"), strict=True))
_IMAGES = 256  # to measure batch norm on, evenly spread over the training images
_BATCH = 8
_NORM = math.sqrt(2)  # of a filter as Kaiming initialisation makes it, whatever its size


def adopt(repository: Path, manifest: Manifest, run: Path, progress: bool = False) -> dict[str, Any]:
    """Make a run folder of the networks that a model repository serves; its stages are finished ones.

    Args:
        repository: that `mbdcnn export` wrote.
        manifest: index of the data to train on; batch norm is measured on its training images.
        run: folder of the new run.
        progress: show a bar on standard error.

    Returns:
        The run's provenance; of each stage `adopted` says from which version it is.

    Raises:
        UserError: the repository is damaged or its networks are not of the form that its manifest says, the run is
            there already, the data has no training images, or one cannot be decoded.
    """
    document = verify(repository)
    if run.exists() and any(run.iterdir()):
        raise UserError(f"{run} holds something already; name a new --run.")
    items = manifest.select("training")
    if not items:
        raise UserError(f"{manifest.root} has no training images, which batch norm is measured on; name other --data.")
    made: dict[str, dict[str, Any]] = document["provenance"].get("stages", {})
    if any("settings" not in made.get(stage, {}) for stage in STAGES):
        raise UserError(f"{repository} does not say what its networks were trained with; export their run again.")
    configs = {stage: _settings(made[stage]["settings"], repository) for stage in STAGES}
    version = int(document["version"])
    networks: dict[str, Any] = {
        stage: _unfolded(runs.NETWORKS[stage](configs[stage].network), repository / model / str(version))
        for stage, model in MODELS.items()
    }
    chain = MutualBootstrap(*(networks[stage] for stage in STAGES)).eval()
    _measure(chain, _batches(manifest, items, configs[STAGES[-1]], progress))
    origin = {"version": version, "run": document["provenance"]["run"]}
    for stage, network in networks.items():
        folder = run / stage
        folder.mkdir(parents=True)
        configuration.save(configs[stage], folder / runs.CONFIG)
        runs.save_weights(network, folder / runs.WEIGHTS)
        metrics = {name: value for name, value in made[stage].items() if name != "settings"}
        runs.write_json(folder / runs.METRICS, {**metrics, "adopted": origin})
    manifest.save(run / runs.MANIFEST)
    return runs.provenance(run)


def _settings(settings: dict[str, Any], repository: Path) -> Config:
    """A stage's settings; what the repository's code did not know has its default."""
    name = settings.get("preset", "")
    start = preset(name) if name in PRESETS else Config()
    known = configuration.flatten(start)
    try:
        return configuration.override(start, [f"{k}={json.dumps(v)}" for k, v in settings.items() if k in known])
    except UserError as error:
        raise UserError(f"The manifest of {repository} has settings that cannot be used: {error}") from None


def _unfolded(network: nn.Module, folder: Path) -> nn.Module:
    """A network with the tensors of an exported graph; batch norm is one that only adds what it was folded to."""
    stored = _tensors(folder / "model.onnx")
    modules, filled = dict(network.named_modules()), dict[str, Tensor]()
    for name, own in tensors_of(network).items():
        if (tensor := stored.get(f"network.{name}")) is not None and tensor.shape == own.shape:
            filled[name] = tensor
    for norm, convolution in _folded(network):
        if f"{norm}.weight" not in filled and f"{convolution}.weight" in filled:
            layer = modules[norm]
            assert isinstance(layer, nn.BatchNorm2d)
            zeros = torch.zeros(layer.num_features)
            bias = stored.get(f"network.{convolution}.weight_bias", zeros)  # one of zeros is left out
            filled |= {f"{norm}.bias": bias, f"{norm}.weight": zeros + math.sqrt(1 + layer.eps)}
            filled |= {f"{norm}.running_mean": zeros, f"{norm}.running_var": zeros + 1}
    missing = [name for name in tensors_of(network) if name not in filled]
    if missing:
        raise UserError(
            f"{folder} holds a network of another form than its manifest says: {', '.join(missing[:3])} cannot be "
            "found in it; only repositories that `mbdcnn export` wrote can be trained on."
        )
    network.load_state_dict(filled, strict=False)  # strict but for batch norm's counters
    return network.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """The float tensors of a graph by name, as float32."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UserError("onnx is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None
    arrays = ((tensor.name, numpy_helper.to_array(tensor)) for tensor in onnx.load(path).graph.initializer)
    return {
        name.removesuffix("_float16"): torch.from_numpy(array.astype(np.float32))
        for name, array in arrays
        if array.dtype in (np.float16, np.float32)
    }


def _folded(network: nn.Module) -> list[tuple[str, str]]:
    """Each batch norm that directly follows a convolution, with that convolution, by their names."""
    names = {module: name for name, module in network.named_modules()}
    made: dict[int, tuple[str, Tensor]] = {}  # with the tensor, lest its id is given to another
    found: list[tuple[str, str]] = []

    def leaves(module: nn.Module, _: Any, output: Tensor) -> None:
        made[id(output)] = names[module], output

    def enters(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            found.append((names[module], made[id(inputs[0])][0]))

    hooks = [m.register_forward_hook(leaves) for m in names if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(enters) for m in names if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        network.eval()(*(torch.zeros(1, channels, 64, 64) for channels in getattr(network, "_inputs", (3, 1))))
    for hook in hooks:
        hook.remove()
    return found


class _Statistics:
    """Mean and variance of each channel of what enters a batch norm, over all batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, Tensor, Tensor]] = []  # pixels, mean, variance

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        self.batches.append((inputs[0].numel() // inputs[0].shape[1], mean.double(), variance.double()))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, each `(C,)` float64."""
        counts, means, variances = zip(*self.batches, strict=True)
        share = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
        mean = (share * torch.stack(means)).sum(0)
        return mean, (share * (torch.stack(variances) + (torch.stack(means) - mean) ** 2)).sum(0)


@torch.no_grad()
def _measure(chain: MutualBootstrap, batches: Iterator[Tensor]) -> None:
    """Share out what each pair of convolution and batch norm does as training would have it; its result stays."""
    pairs = []
    for network in (chain.coarse_sn, chain.mask_cn, chain.enhanced_sn):
        assert network is not None
        modules = dict(network.named_modules())
        pairs += [(modules[c], modules[n], _Statistics()) for n, c in _folded(network)]
    hooks = [norm.register_forward_pre_hook(statistics) for _, norm, statistics in pairs]
    for batch in batches:
        chain(batch)
    for hook in hooks:
        hook.remove()
    for convolution, norm, statistics in pairs:
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _share_out(convolution, norm, *statistics.moments())


def _share_out(convolution: nn.Conv2d, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Give the filters their norm, and batch norm the statistics that follow from it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = norm.bias.double() - slope * norm.running_mean.double()
    filters = convolution.weight.double()
    size = filters.flatten(1).norm(dim=1)
    factor = torch.where(size > 0, _NORM / size.clamp(min=1e-12), torch.ones_like(size))
    convolution.weight.copy_(filters * factor[:, None, None, None])
    deviation = (variance * factor**2 + norm.eps).sqrt()
    norm.running_mean.copy_(mean * factor)
    norm.running_var.copy_(variance * factor**2)
    norm.weight.copy_(slope * deviation / factor)
    norm.bias.copy_(offset + slope * mean)


def _batches(manifest: Manifest, items: Sequence[Item], config: Config, progress: bool) -> Iterator[Tensor]:
    some = items[:: max(1, len(items) // _IMAGES)][:_IMAGES]
    with tqdm(total=len(some), desc="adopt", unit="image", leave=False, disable=not progress) as bar:
        for start in range(0, len(some), _BATCH):
            images = [decoded(decode_image, manifest, item.image) for item in some[start : start + _BATCH]]
            yield torch.from_numpy(np.stack([prepare(image, config.preprocessing) for image in images]))
            bar.update(len(images))
