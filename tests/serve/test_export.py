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
