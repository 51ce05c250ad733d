from __future__ import annotations

import copy
import hashlib
import json

import numpy as np
import pytest
import torch

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.classes import CLASSES
from mbdcnn.config import override
from mbdcnn.errors import UserError
from mbdcnn.presets import smoke
from serve import _parity
from serve import export as room
from serve._graphs import GRAPHS
from serve.verify import files_in


def test_manifest_says_what_is_there(exported):
    on_disk = json.loads((exported.repository / "manifest.json").read_text())
    assert on_disk == exported.manifest
    files = {str(p.relative_to(exported.repository)) for p in files_in(exported.repository)}
    assert files == {*on_disk["files"], "manifest.json"}
    for name, digest in on_disk["files"].items():
        assert hashlib.sha256((exported.repository / name).read_bytes()).hexdigest() == digest
    assert on_disk["classes"] == list(CLASSES)
    assert on_disk["provenance"] == {"run": "untrained"}
    assert (exported.repository / "fingerprint.json").read_text() == '{"name": "none"}'
    assert on_disk["preprocessing"]["image_size"] == exported.spec.image_size


def test_parity_is_far_inside_the_tolerances(exported):
    parity = exported.manifest["parity"]
    assert parity["max_abs"]["probabilities"] < 1e-5
    assert parity["max_abs"]["lesion_probability"] < 1e-3
    assert parity["min_JA"]["mask_JA"] >= 0.999


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


def test_graphs_name_no_folder_of_the_exporting_machine(exported):
    for name in GRAPHS:
        data = (exported.repository / name / "1" / "model.onnx").read_bytes()
        assert b"site-packages" not in data
        assert b".py" not in data


def test_every_ensemble_tensor_is_made_once_and_no_output_is_a_later_input():
    """Triton cannot answer a request for one output that is also a later step's input."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    configs = {
        path.parent.name: text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        for path in room.SOURCE.glob("*/config.pbtxt")
    }
    ensemble = configs["mbdcnn"]
    made = [i.name for i in ensemble.input]
    for step in ensemble.ensemble_scheduling.step:
        model = configs[step.model_name]
        assert set(step.input_map) == {i.name for i in model.input}
        assert set(step.output_map) == {o.name for o in model.output}
        assert set(step.input_map.values()) <= set(made)
        made += step.output_map.values()
    assert len(made) == len(set(made))
    outputs = {o.name for o in ensemble.output}
    inputs = {v for step in ensemble.ensemble_scheduling.step for v in step.input_map.values()}
    assert outputs <= set(made)
    assert not outputs & inputs
    assert {c.max_batch_size for c in configs.values()} == {16}


class TestReplacing:
    def test_an_earlier_export_may_be_replaced(self, exported):
        room._check_replaceable(exported.repository)

    def test_an_empty_folder_may_be_used(self, tmp_path):
        room._check_replaceable(tmp_path)

    def test_a_folder_of_other_files_is_refused(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(UserError, match=r"holds files that no export wrote"):
            room._check_replaceable(tmp_path)

    def test_an_export_with_someone_elses_model_is_refused(self, tmp_path):
        (tmp_path / "manifest.json").write_text(json.dumps({"format": room.FORMAT, "files": {}}))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "config.pbtxt").touch()
        with pytest.raises(UserError, match=r"also holds other/config.pbtxt"):
            room._check_replaceable(tmp_path)

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "out").touch()
        with pytest.raises(UserError, match=r"not a folder"):
            room.export(tmp_path, tmp_path / "out")

    def test_the_new_one_takes_the_place_of_the_old_one(self, tmp_path):
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        room._publish(tmp_path / "new", tmp_path / "old")
        assert [p.name for p in tmp_path.iterdir()] == ["old"]
        assert [p.name for p in (tmp_path / "old").iterdir()] == ["new"]


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
