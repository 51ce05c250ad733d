"""The models' configurations: one description, and profiles that say on what it runs.

A model's `config.pbtxt` in `templates/` is its contract: name, tensors, largest batch, and the steps of the
ensemble `mbdcnn`. `profiles/` and a model's own `<profile>.pbtxt` add what runs it. The export writes the profile
`embedded` as `<model>/config.pbtxt`, and the others as `<model>/configs/<profile>.pbtxt`, which
`mbdcnn serve --profile <profile>` or `tritonserver --model-config-name=<profile>` chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbdcnn.preprocessing import MAX_ENCODED_BYTES, MAX_PIXELS

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

SOURCE = Path(__file__).parent / "templates"
MODELS = tuple(sorted(path.parent.name for path in SOURCE.glob("*/config.pbtxt")))
# The last is `production` but for the models that have a `production-dali.pbtxt`.
EMBEDDED = "embedded"
PROFILES = (EMBEDDED, "production", "production-dali")
FUSED = "mbdcnn_networks"
FRONT = "preprocess"  # of the ensembles, where requests wait
NETWORKS = ("coarse_sn", "mask_cn", "cam", "enhanced_sn", FUSED)
# One level below a mounted folder, because TensorRT makes no more than one.
ENGINE_CACHE = "/var/cache/mbdcnn"
_LABELS = "labels.txt"


@dataclass(frozen=True)
class Facts:
    """What a configuration needs to know of the version that it serves.

    Attributes:
        version: its number, the same for every model.
        classes: in the order of the probabilities.
        tensors: for each model, the shape of each of its tensors without the batch dimension.
        instances: of each model in the profile `embedded`.
        digests: SHA-256 of each network's file; the graph of all networks may have none.
    """

    version: int
    classes: Sequence[str]
    tensors: Mapping[str, Mapping[str, Sequence[int]]]
    instances: int
    digests: Mapping[str, str]


def described(model: str, profile: str) -> ModelConfig:
    """A model's contract with what a profile adds, before the export fills in sizes."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    config = ModelConfig()
    profiles = SOURCE / "profiles"
    _merge(config, SOURCE / model / "config.pbtxt")
    _merge(config, profiles / "every_model.pbtxt")
    family = profile.partition("-")[0]
    own = next((p for name in (profile, family) if (p := SOURCE / model / f"{name}.pbtxt").is_file()), None)
    if own is not None:
        _merge(config, own)
    if config.HasField("ensemble_scheduling"):
        bounds = profiles / family / "ensemble.pbtxt"
        if bounds.is_file():
            _merge(config, bounds)
        return config
    if model == FRONT:
        _merge(config, profiles / "queue.pbtxt")
    if not config.instance_group:
        _merge(config, profiles / family / ("network.pbtxt" if model in NETWORKS else "images.pbtxt"))
    return config


def configured(model: str, profile: str, facts: Facts) -> ModelConfig:
    """A model's whole configuration in a profile."""
    config = described(model, profile)
    shapes = facts.tensors[model]
    for tensor in (*config.input, *config.output):
        if -1 in tensor.dims:
            tensor.dims[:] = shapes[tensor.name]
    for step in config.ensemble_scheduling.step:
        step.model_version = facts.version  # never a mixture of two exports
    limits = {"max_encoded_mb": MAX_ENCODED_BYTES // 2**20, "max_megapixels": MAX_PIXELS // 1_000_000}
    for name in set(limits) & set(config.parameters):
        config.parameters[name].string_value = str(limits[name])
    if profile == EMBEDDED:
        for group in config.instance_group:
            group.count = facts.instances
    elif config.backend == "onnxruntime":
        _for_tensorrt(config, model, facts)
    return config


def write_configurations(repository: Path, facts: Facts) -> None:
    """Write every model's configurations, and `labels.txt` where they name it."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    for model in MODELS:
        folder = repository / model
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        for profile in PROFILES:
            if model == FUSED and profile != "embedded" and model not in facts.digests:
                continue  # exported without: on a GPU, too, the single networks then answer
            config = configured(model, profile, facts)
            heading = f"# Profile {profile}; written by `mbdcnn export`.\n"
            (folder / place(profile)).write_text(heading + text_format.MessageToString(config))
            if any(output.label_filename for output in config.output):
                (folder / _LABELS).write_text("\n".join(facts.classes) + "\n", encoding="utf-8")


def place(profile: str) -> str:
    """Where a model's configuration of a profile lies in its folder."""
    return "config.pbtxt" if profile == EMBEDDED else f"configs/{profile}.pbtxt"


def _merge(config: ModelConfig, path: Path) -> None:
    from google.protobuf import text_format

    text_format.Merge(path.read_text(), config)


def _for_tensorrt(config: ModelConfig, model: str, facts: Facts) -> None:
    """The engine's shapes and cache, and a warm-up that builds it before the server says that it is ready."""
    from tritonclient.grpc import model_config_pb2

    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    inputs = {tensor.name: list(facts.tensors[model][tensor.name]) for tensor in config.input}
    for bound, batch in (("min", 1), ("opt", config.max_batch_size // 2), ("max", config.max_batch_size)):
        shapes = (f"{name}:{'x'.join(map(str, [batch, *shape]))}" for name, shape in inputs.items())
        accelerator.parameters[f"trt_profile_{bound}_shapes"] = ",".join(shapes)
    # TensorRT names its engines by the graph, not by the weights: other weights need another folder
    cache = f"{ENGINE_CACHE}/{model}-{facts.digests[model][:16]}"
    accelerator.parameters["trt_engine_cache_path"] = cache
    accelerator.parameters["trt_timing_cache_path"] = cache
    for batch in (1, config.max_batch_size):
        warm = config.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        for name, shape in inputs.items():
            tensor = model_config_pb2.ModelWarmup.Input(
                data_type=model_config_pb2.TYPE_FP32, dims=shape, zero_data=True
            )
            warm.inputs[name].CopyFrom(tensor)
