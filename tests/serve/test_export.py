from __future__ import annotations

import copy
import hashlib
import json

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, checker, helper, numpy_helper

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.classes import CLASSES
from mbdcnn.config import override
from mbdcnn.doubt import Calibration, Familiarity
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import prepare
from mbdcnn.presets import smoke
from serve import _parity
from serve import export as room
from serve._form import Form
from serve._graphs import CHAIN, GRAPHS, OPSET
from serve._half import halve_weights
from serve.verify import files_in, verify


def test_manifest_says_what_is_there(exported):
    on_disk = json.loads((exported.repository / "manifest.json").read_text())
    assert on_disk == exported.manifest
    files = {str(p.relative_to(exported.repository)) for p in files_in(exported.repository)}
    assert files == {*on_disk["files"], "manifest.json"}
    for name, digest in on_disk["files"].items():
        assert hashlib.sha256((exported.repository / name).read_bytes()).hexdigest() == digest
    assert on_disk["bytes"] == sum((exported.repository / name).stat().st_size for name in on_disk["files"])
    assert on_disk["classes"] == list(CLASSES)
    assert on_disk["provenance"] == {"run": "untrained"}
    assert (exported.repository / "fingerprint.json").read_text() == '{"name": "none"}'
    assert on_disk["preprocessing"]["image_size"] == exported.spec.image_size


def test_parity_is_far_inside_the_tolerances(exported):
    parity = exported.manifest["parity"]
    assert parity["max_abs"]["probabilities"] < 1e-5
    assert parity["max_abs"]["lesion_probability"] < 1e-3
    assert parity["JA"]["mask_JA"] >= 0.999


def test_the_masks_of_these_tests_are_mixed(exported):
    """Parity of empty masks would say nothing."""
    said = [exported.expect(image) for image in _parity._images()]
    assert 0.1 < np.mean([s.coarse_mask.mean() for s in said]) < 0.9
    assert 0.05 < np.mean([(s.lesion_probability > 0.5).float().mean() for s in said]) < 0.9


@pytest.mark.parametrize("damage", ["shifted", "nan"])
def test_other_weights_fail_the_parity_check(exported, damage):
    other = copy.deepcopy(exported.networks)
    with torch.no_grad():
        other.mask_cn.classifier.bias[0] += 0.1 if damage == "shifted" else float("nan")
    with pytest.raises(UserError, match=r"do not say what the trained ones say: probabilities differ"):
        _parity.check_parity(other, exported.spec, exported.repository)


def test_a_calibration_goes_into_the_graphs(networks, exported, tmp_path):
    channels = networks.mask_cn.classifier.in_features
    axes = torch.linalg.qr(torch.randn(channels, 5, generator=torch.Generator().manual_seed(0))).Q.T
    parts = (torch.zeros(channels), axes, torch.arange(5.0) + 1, torch.tensor(0.5), torch.tensor(3.0))
    calibrated = copy.copy(networks)
    calibrated._modules = {**networks._modules, "calibration": Calibration(1.7, Familiarity(*parts))}
    manifest = room.export_networks(calibrated, exported.spec, tmp_path / "out", {"run": "untrained"}, instances=1)
    assert manifest["parity"]["max_abs"]["unfamiliarity"] < 1e-3
    assert manifest["parity"]["fused"]["max_abs"]["class_doubt"] < 1e-5
    said = exported.expect(_parity._images()[0])
    image = np.stack([prepare(_parity._images()[0], exported.spec)])
    served = _parity.run_chain(tmp_path / "out", 1, image)
    assert served["probabilities"] == pytest.approx((said.logits / 1.7).softmax(1).numpy(), abs=1e-5)
    assert served["cam"] == pytest.approx(said.cam.numpy(), abs=1e-3)
    assert served["class_doubt"][0, 0] == pytest.approx(1 - served["probabilities"].max(), abs=1e-6)
    assert served["unfamiliarity"].shape == (1, 1)
    assert served["unfamiliarity"][0, 0] > 0


def test_networks_that_are_asked_about_views_are_served_so(networks, exported, tmp_path):
    calibrated = copy.copy(networks)
    calibrated._modules = {**networks._modules, "calibration": Calibration(views=4)}
    manifest = room.export_networks(calibrated, exported.spec, tmp_path / "out", {"run": "untrained"}, instances=1)
    assert manifest["parity"]["max_abs"]["lesion_probability"] < 1e-3
    assert manifest["parity"]["max_abs"]["probabilities"] < 1e-4
    assert manifest["parity"]["fused"]["max_abs"]["lesion_probability"] < 1e-3
    picture = _parity._images()[0]
    images = np.stack([prepare(picture, exported.spec), prepare(np.ascontiguousarray(picture[:, ::-1]), exported.spec)])
    served, once = (_parity.run_chain(folder, 1, images) for folder in (tmp_path / "out", exported.repository))
    assert served["coarse"][1, 0, :, ::-1] == pytest.approx(served["coarse"][0, 0], abs=1e-4)
    assert served["logits"][1] == pytest.approx(served["logits"][0], abs=1e-2)
    assert abs(once["coarse"][1, 0, :, ::-1] - once["coarse"][0, 0]).max() > 1e-3


def test_half_the_bytes_give_the_same_answers_but_for_rounding(networks, exported, tmp_path):
    whole, form = tmp_path / "whole", Form("float16", fused=False)
    manifest = room.export_networks(networks, exported.spec, whole, {"run": "untrained"}, instances=1, form=form)
    assert manifest["weights"] == "float16"
    assert manifest["parity"]["fused"] is None
    assert 0 < manifest["parity"]["max_abs"]["logits"] < 5e-2
    files = {name: (whole / name / "1" / "model.onnx").stat().st_size for name in CHAIN}
    before = {name: (exported.repository / name / "1" / "model.onnx").stat().st_size for name in CHAIN}
    assert sum(files.values()) < 0.6 * sum(before.values())
    assert [p.name for p in (whole / "mbdcnn_networks" / "1").iterdir()] == ["no-graph.txt"]
    assert list((whole / "mbdcnn_networks" / "configs").iterdir()) == []
    assert list((whole / "mbdcnn_fused" / "configs").iterdir()) != []
    verify(whole)
    image = np.stack([prepare(_parity._images()[0], exported.spec)])
    exact, rounded = (_parity.run_chain(folder, 1, image) for folder in (exported.repository, whole))
    assert rounded["lesion"].dtype == np.float32
    assert (rounded["lesion"] != exact["lesion"]).any()
    assert rounded["probabilities"] == pytest.approx(exact["probabilities"], abs=1e-2)


def test_a_weight_that_float16_cannot_hold_stays_whole():
    values = {"a": np.full(2000, 7.3, np.float32), "b": np.full(2000, 1e6, np.float32), "c": np.ones(9, np.float32)}
    tensors = [numpy_helper.from_array(array, name) for name, array in values.items()]
    nodes = [helper.make_node("Identity", [name], [name.upper()]) for name in values]
    outputs = [helper.make_tensor_value_info(n.upper(), TensorProto.FLOAT, v.shape) for n, v in values.items()]
    graph = helper.make_graph(nodes, "graph", [], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    halve_weights(model)
    checker.check_model(model)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"a_float16": TensorProto.FLOAT16, "b": TensorProto.FLOAT, "c": TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rounded, *exact = session.run(None, {})
    assert rounded == pytest.approx(values["a"], rel=2**-11)
    assert (exact[0] == values["b"]).all()
    assert (exact[1] == values["c"]).all()


def test_without_a_calibration_nothing_is_called_familiar(exported):
    image = np.stack([prepare(_parity._images()[0], exported.spec)])
    assert _parity.run_chain(exported.repository, 1, image)["unfamiliarity"].tolist() == [[-1.0]]


def test_graphs_name_no_folder_of_the_exporting_machine(exported):
    for name in GRAPHS:
        data = (exported.repository / name / "1" / "model.onnx").read_bytes()
        assert b"site-packages" not in data
        assert b".py" not in data


def test_a_missing_run_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"no-run"):
        room.export(tmp_path / "no-run", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["network.mask_channel=false", "network.e_layer=none"])
def test_an_experiment_without_the_whole_chain_is_refused(setting, tmp_path):
    config = override(smoke(), [setting])
    for stage, build in runs.NETWORKS.items():
        folder = tmp_path / "run" / stage
        folder.mkdir(parents=True)
        configuration.save(config, folder / runs.CONFIG)
        runs.save_weights(build(config.network), folder / runs.WEIGHTS)
        runs.write_json(folder / runs.METRICS, {})
    with pytest.raises(UserError, match=r"the ensemble cannot serve"):
        room.export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
