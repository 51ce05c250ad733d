"""The three networks and the activation map as four ONNX graphs that a Triton ensemble chains, and as one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mbdcnn.cam import class_activation_map
from mbdcnn.doubt import mask_doubt
from mbdcnn.networks import binarise, guiding_mask, over_views
from serve._form import Form
from serve._half import halve_weights
from serve._profiles import FUSED

if TYPE_CHECKING:
    import onnx

    from mbdcnn.networks import MutualBootstrap

OPSET = 18


class _CoarseSN(nn.Module):
    def __init__(self, networks: MutualBootstrap) -> None:
        super().__init__()
        assert networks.coarse_sn is not None
        self.network = networks.coarse_sn
        self.views = networks.calibration.views

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        probability = over_views(self.network, image, views=self.views)
        return guiding_mask(probability), binarise(probability).to(torch.uint8), probability


class _MaskCN(nn.Module):
    def __init__(self, networks: MutualBootstrap) -> None:
        super().__init__()
        assert networks.mask_cn is not None
        self.network = networks.mask_cn
        self.calibration = networks.calibration

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        logits, features = over_views(self.network, image, mask, views=self.calibration.views)
        probabilities, doubt, unfamiliarity = self.calibration(logits, features.float().mean((2, 3)))
        return probabilities, logits, features, doubt, unfamiliarity


class _Cam(nn.Module):
    def __init__(self, networks: MutualBootstrap) -> None:
        super().__init__()
        assert networks.mask_cn is not None
        self.register_buffer("weight", networks.mask_cn.classifier.weight.detach().clone())

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        return class_activation_map(features, self.get_buffer("weight"), logits.argmax(1))


class _EnhancedSN(nn.Module):
    def __init__(self, networks: MutualBootstrap) -> None:
        super().__init__()
        assert networks.enhanced_sn is not None
        self.network = networks.enhanced_sn
        self.views = networks.calibration.views

    def forward(self, image: Tensor, cam: Tensor) -> tuple[Tensor, Tensor]:
        lesion = over_views(self.network, image, cam, views=self.views)
        return lesion, mask_doubt(lesion)


class _Networks(nn.Module):
    def __init__(self, networks: MutualBootstrap) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        said = self.networks(image)
        doubts = said.mask_doubt, said.class_doubt, said.unfamiliarity
        return said.probabilities, said.coarse_mask.to(torch.uint8), said.cam, said.lesion_probability, *doubts


@dataclass(frozen=True)
class _Graph:
    """How one model of the repository is exported.

    Attributes:
        build: makes the module.
        inputs: names, in the order of the module's arguments.
        outputs: names, in the order of the module's results.
        aliases: outputs that get a second name, because Triton cannot answer a request for a single ensemble
            output when that tensor is also a later step's input.
    """

    build: Callable[[MutualBootstrap], nn.Module]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()


# In the order in which the ensemble asks them.
CHAIN = {
    "coarse_sn": _Graph(_CoarseSN, ("image",), ("mask", "mask_out", "coarse")),
    "mask_cn": _Graph(
        _MaskCN, ("image", "mask"), ("probabilities", "logits", "features", "class_doubt", "unfamiliarity")
    ),
    "cam": _Graph(_Cam, ("features", "logits"), ("cam",), (("cam", "cam_out"),)),
    "enhanced_sn": _Graph(_EnhancedSN, ("image", "cam"), ("lesion", "mask_doubt"), (("lesion", "lesion_out"),)),
}
GRAPHS = CHAIN | {
    FUSED: _Graph(
        _Networks,
        ("image",),
        ("probabilities", "mask_out", "cam_out", "lesion", "mask_doubt", "class_doubt", "unfamiliarity"),
        (("lesion", "lesion_out"),),
    )
}


def write_graphs(
    networks: MutualBootstrap,
    image_size: int,
    folder: Path,
    version: int,
    done: Callable[[], object],
    form: Form = Form(),  # noqa: B008 - frozen
) -> dict[str, dict[str, list[int]]]:
    """Write `<model>/<version>/model.onnx` for each network, with a dynamic batch.

    Args:
        networks: in evaluation mode, on the CPU.
        image_size: S, the side of the square input in pixels.
        folder: the model repository.
        version: of every model.
        done: called after each.
        form: of the networks.

    Returns:
        For each model, the shape of each of its tensors without the batch dimension.
    """
    tensors = {"image": torch.zeros(2, 3, image_size, image_size)}  # a batch of one would be taken for a constant
    shapes = {}
    for name, graph in GRAPHS.items():
        module = graph.build(networks).eval()
        arguments = tuple(tensors[i] for i in graph.inputs)
        with torch.no_grad():
            results = module(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        tensors |= dict(zip(graph.outputs, results, strict=True))
        if name != FUSED or form.fused:
            model = _to_onnx(module, arguments, graph)
            if form.weights == "float16":
                halve_weights(model)
            _write(model, graph, folder / name / str(version) / "model.onnx")
        seen = {n: list(tensors[n].shape[1:]) for n in (*graph.inputs, *graph.outputs)}
        shapes[name] = seen | {alias: seen[n] for n, alias in graph.aliases}
        done()
    return shapes


def _to_onnx(module: nn.Module, arguments: tuple[Tensor, ...], graph: _Graph) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            module,
            arguments,
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in arguments),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _write(model: onnx.ModelProto, graph: _Graph, path: Path) -> None:
    import onnx

    for node in model.graph.node:  # the exporter's traces name the folders of the machine that exported
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    for values in (model.graph.input, model.graph.output, model.graph.value_info, model.graph.initializer):
        for value in values:
            value.ClearField("metadata_props")
    for name, alias in graph.aliases:
        model.graph.node.append(onnx.helper.make_node("Identity", [name], [alias]))
        output = model.graph.output.add()
        output.CopyFrom(next(o for o in model.graph.output if o.name == name))
        output.name = alias
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own internals; what matters, parity, is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
