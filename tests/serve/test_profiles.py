"""The configurations: profiles of one description, against Triton's schema."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serve._profiles import FUSED, MODELS, NETWORKS, PROFILES, SOURCE, described

CONTRACT = ("name", "max_batch_size", "input", "output", "version_policy")
ON_GPU = {"mbdcnn", "mbdcnn_fused"}
ENSEMBLES = {"embedded": {"mbdcnn", FUSED}, "production": ON_GPU, "production-dali": ON_GPU}


def parsed(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def configs(exported):
    """All profiles as the export wrote them, parsed against Triton's schema, which refuses unknown fields."""
    places = {p: "config.pbtxt" if p == "embedded" else f"configs/{p}.pbtxt" for p in PROFILES}
    return {
        profile: {model: parsed((exported.repository / model / place).read_text()) for model in MODELS}
        for profile, place in places.items()
    }


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("model", MODELS)
def test_every_profile_keeps_the_contract(configs, model, profile):
    embedded, other = configs["embedded"][model], configs[profile][model]
    for name in CONTRACT:
        assert getattr(embedded, name) == getattr(other, name), name
    for name in embedded.parameters.keys() - {"most_waiting"}:  # which bounds queues of the embedded server alone
        assert embedded.parameters[name] == other.parameters[name], name
    assert embedded.name == model
    assert embedded.max_batch_size == 16
    assert all(dim > 0 for tensor in (*embedded.input, *embedded.output) for dim in tensor.dims)
    assert all(value.string_value for value in embedded.parameters.values())


def test_profiles_add_to_contracts_and_change_nothing_of_them():
    for model in MODELS:
        contract = parsed((SOURCE / model / "config.pbtxt").read_text())
        for profile in PROFILES:
            whole = described(model, profile)
            for field, value in contract.ListFields():
                if field.name == "parameters":
                    assert set(value) <= set(whole.parameters)
                elif field.name != "ensemble_scheduling":
                    assert getattr(whole, field.name) == value, (model, profile, field.name)


def test_the_ensemble_takes_the_same_steps_in_every_profile(configs):
    embedded, *others = (list(configs[profile]["mbdcnn"].ensemble_scheduling.step) for profile in PROFILES)
    assert others == [embedded, embedded]
    assert [s.model_name for s in embedded] == [
        "preprocess", "coarse_sn", "mask_cn", "cam", "enhanced_sn", "postprocess"
    ]  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
def test_every_ensemble_tensor_is_made_once_and_no_output_is_a_later_input(configs, profile):
    """Triton cannot answer a request for one output that is also a later step's input."""
    models = configs[profile]
    ensembles = {name for name, config in models.items() if config.HasField("ensemble_scheduling")}
    assert ensembles == ENSEMBLES[profile]
    for ensemble in (models[name] for name in ensembles):
        made = [i.name for i in ensemble.input]
        for step in ensemble.ensemble_scheduling.step:
            model = models[step.model_name]
            assert set(step.input_map) == {i.name for i in model.input}
            alone = {"coarse"} if step.model_name == "coarse_sn" else set()  # which evaluations of the files read
            assert set(step.output_map) == {o.name for o in model.output} - alone
            assert set(step.input_map.values()) <= set(made)
            made += step.output_map.values()
        assert len(made) == len(set(made))
        outputs = {o.name for o in ensemble.output}
        inputs = {v for step in ensemble.ensemble_scheduling.step for v in step.input_map.values()}
        assert outputs <= set(made)
        assert not outputs & inputs


@pytest.mark.parametrize("profile", PROFILES)
def test_tensors_of_a_step_fit_those_that_it_is_mapped_to(configs, profile):
    models = configs[profile]
    for name in ENSEMBLES[profile]:
        ensemble = models[name]
        kinds = {t.name: (t.data_type, list(t.dims)) for t in (*ensemble.input, *ensemble.output)}
        for step in ensemble.ensemble_scheduling.step:
            model = models[step.model_name]
            for maps, tensors in ((step.input_map, model.input), (step.output_map, model.output)):
                for tensor in tensors:
                    kind = (tensor.data_type, list(tensor.dims))
                    assert kinds.setdefault(maps[tensor.name], kind) == kind


@pytest.mark.parametrize("profile", PROFILES)
def test_queues_end_and_versions_do_not_mix(configs, profile):
    for name, config in configs[profile].items():
        assert config.version_policy.latest.num_versions == 1
        assert {step.model_version for step in config.ensemble_scheduling.step} <= {1}
        policy = config.dynamic_batching.default_queue_policy
        if name == "preprocess":
            assert policy.max_queue_size == 128
            assert policy.allow_timeout_override
            assert policy.default_timeout_microseconds > 0  # else a request's own one is not heeded
        elif name not in ENSEMBLES[profile]:
            # with a bound or a time limit requests that wait would now and then be left alone for half a second
            assert policy == model_config_pb2.ModelQueuePolicy()
            if profile == "embedded" and name == "mbdcnn_fused":
                assert config.parameters["most_waiting"].string_value == "128"
        elif profile != "embedded":
            assert config.ensemble_scheduling.max_inflight_requests > 0


def test_embedded_runs_everything_in_python_with_the_asked_number_of_instances(configs):
    for name, config in configs["embedded"].items():
        if name not in ENSEMBLES["embedded"]:
            assert config.backend == "python"
            assert list(config.dynamic_batching.preferred_batch_size) == [1]
            assert [(g.kind, g.count) for g in config.instance_group] == [
                (model_config_pb2.ModelInstanceGroup.KIND_CPU, 2)
            ]


def test_production_runs_networks_through_tensorrt(configs, exported):
    side = exported.spec.image_size
    for name in NETWORKS:
        config = configs["production"][name]
        assert config.backend == "onnxruntime"
        assert config.default_model_filename == "model.onnx"
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert accelerator.name == "tensorrt"
        assert accelerator.parameters["precision_mode"] == "FP32"
        digest = exported.manifest["files"][f"{name}/1/model.onnx"]
        assert accelerator.parameters["trt_engine_cache_path"] == f"/var/cache/mbdcnn/{name}-{digest[:16]}"
        inputs = {i.name: list(i.dims) for i in config.input}
        for warm, (bound, batch) in zip(config.model_warmup, (("min", 1), ("max", 16)), strict=True):
            said = dict(part.split(":") for part in accelerator.parameters[f"trt_profile_{bound}_shapes"].split(","))
            assert {n: [int(d) for d in s.split("x")] for n, s in said.items()} == {
                n: [batch, *dims] for n, dims in inputs.items()
            }
            assert warm.batch_size == batch
            assert {n: list(tensor.dims) for n, tensor in warm.inputs.items()} == inputs
    mask_cn = configs["production"]["mask_cn"].optimization.execution_accelerators.gpu_execution_accelerator[0]
    assert mask_cn.parameters["trt_profile_opt_shapes"] == f"image:8x3x{side}x{side},mask:8x1x{side}x{side}"


def test_the_two_production_profiles_differ_in_who_decodes_alone(configs):
    pillow, dali = configs["production"], configs["production-dali"]
    assert [name for name in MODELS if pillow[name] != dali[name]] == ["preprocess"]
    assert pillow["preprocess"].instance_group[0].count > dali["preprocess"].instance_group[0].count
    assert dali["preprocess"].parameters["decoder"].string_value == "dali"


def test_onnx_files_have_the_tensors_that_the_onnxruntime_backend_is_told(configs, exported):
    import onnx

    kinds = {onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32, onnx.TensorProto.UINT8: model_config_pb2.TYPE_UINT8}
    for name in NETWORKS:
        graph = onnx.load(exported.repository / name / "1" / "model.onnx", load_external_data=False).graph
        config = configs["production"][name]
        for ours, theirs in ((config.input, graph.input), (config.output, graph.output)):
            found = {
                t.name: (kinds[t.type.tensor_type.elem_type], [d.dim_value for d in t.type.tensor_type.shape.dim][1:])
                for t in theirs
            }
            assert {t.name: (t.data_type, list(t.dims)) for t in ours} == found
