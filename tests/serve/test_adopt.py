"""From a model repository back to a run: the networks answer as before, and can be trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import Exported
from torch import nn

from mbdcnn import runs
from mbdcnn.config import override
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.sample import draw, write_sample
from mbdcnn.errors import UserError
from mbdcnn.networks import MutualBootstrap
from mbdcnn.preprocessing import prepare
from mbdcnn.presets import preset
from serve._form import Form
from serve.adopt import adopt
from serve.export import export
from train.plan import plan_run
from train.processes import run_processes
from train.stages import train_stages


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("data")
    write_sample(folder, {"training": 12, "validation": 6}, size=120)
    return index_folder(folder)


@pytest.fixture(scope="module")
def repository(
    write_run: Callable[[Path, Path], Path], drawn: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("served")
    run = write_run(folder / "run", drawn.root)
    export(run, folder / "repository", instances=1, form=Form("float16", fused=False))
    return folder / "repository"


@pytest.fixture(scope="module")
def run(repository: Path, drawn: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adopted") / "run"
    adopt(repository, drawn, folder)
    return folder


def images(exported: Exported) -> torch.Tensor:
    return torch.from_numpy(np.stack([prepare(draw("training", i)[0], exported.spec) for i in range(4)]))


def test_the_networks_answer_as_the_repository_does(exported: Exported, run: Path) -> None:
    adopted, config = runs.load_networks(run)
    assert config.preprocessing == exported.spec
    with torch.inference_mode():
        ours, theirs = adopted(images(exported)), exported.networks(images(exported))
    for name, tolerance in (("logits", 5e-2), ("coarse_probability", 2e-2), ("lesion_probability", 2e-2)):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=tolerance, rtol=0)  # float16


def test_batch_norm_finds_in_training_what_it_was_given(exported: Exported, run: Path) -> None:
    """Else the first steps of a training would undo what the networks know."""
    adopted, _ = runs.load_networks(run)
    assert adopted.coarse_sn is not None
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))

        return hook

    norms = {n: m for n, m in adopted.coarse_sn.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(note(name))
    with torch.inference_mode():
        adopted.coarse_sn(images(exported))
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = seen[name]
        if norm.running_var.max() > 1e-6 and "aspp.0.convs.4" not in name:  # which pools whole images: too few to tell
            assert (mean - norm.running_mean).abs().mean() < 0.5 * norm.running_var.sqrt().mean()
            assert 0.3 < variance.mean() / norm.running_var.mean() < 3


def test_filters_are_as_long_as_those_of_a_new_network(run: Path) -> None:
    adopted, _ = runs.load_networks(run)
    assert isinstance(adopted, MutualBootstrap)
    assert adopted.mask_cn is not None
    first = next(m for m in adopted.mask_cn.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.flatten(1).norm(dim=1).tolist() == pytest.approx([2**0.5] * len(first.weight))


def test_what_they_were_made_from_is_kept_and_where_from_is_told(repository: Path, run: Path) -> None:
    made = json.loads((repository / "manifest.json").read_text())["provenance"]["stages"]
    for stage, settings in made.items():
        metrics = json.loads((run / stage / runs.METRICS).read_text())
        assert metrics == {**{k: v for k, v in settings.items() if k != "settings"}, "adopted": metrics["adopted"]}
        assert metrics["adopted"] == {"version": 1, "run": "run"}
    found = json.loads(json.dumps(runs.provenance(run)["stages"]))
    assert {stage: made[stage]["settings"] for stage in made} == {stage: found[stage]["settings"] for stage in found}


def test_they_are_trained_on_and_exported_again(run: Path, drawn: Manifest, tmp_path: Path) -> None:
    settings = [f"{stage}.{name}" for stage in ("coarse", "mask", "enhanced") for name in ("epochs=1", "batch_size=4")]
    config = override(preset("smoke"), [*settings, f"bootstrap.start_run={run}"])
    stages = ("coarse", "mask", "enhanced")
    run_processes(train_stages, 1, plan_run(tmp_path / "tuned", stages, config, drawn), stages)
    begun = json.loads((tmp_path / "tuned" / "mask" / runs.METRICS).read_text())["initial_tensors"]
    assert begun["new"] == 0
    assert export(tmp_path / "tuned", tmp_path / "repository", instances=1)["version"] == 1


def test_what_cannot_be_adopted_is_refused_in_a_sentence(
    exported: Exported, repository: Path, run: Path, drawn: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds something already; name a new --run"):
        adopt(repository, drawn, run)
    with pytest.raises(UserError, match="does not say what its networks were trained with"):
        adopt(exported.repository, drawn, tmp_path / "a")
    with pytest.raises(UserError, match="has no training images"):
        adopt(repository, Manifest(drawn.root, drawn.select("validation")), tmp_path / "b")
    other = tmp_path / "repository"
    shutil.copytree(repository, other)
    graph = other / "mask_cn" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="is not as it was exported"):
        adopt(other, drawn, tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")
