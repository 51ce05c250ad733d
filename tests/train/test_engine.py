"""One stage in this process: interrupted at exact steps, with every setting of the engine, and with bad numbers."""

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from engine_runs import after_step, plan, stop_after, train, weights
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from mbdcnn.config import override
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import Stopped, UserError
from mbdcnn.files import locked
from mbdcnn.presets import preset
from train.checkpoints import best_file, checkpoints, read_state

pytestmark = pytest.mark.slow
MEAN = ["engine.ema_decay=0.5", "engine.accumulation=2", "engine.clip_norm=0.5", "engine.weight_decay=0.01"]
MEAN += ["engine.warmup_steps=2", "coarse.schedule=cosine"]


def without_time(log: Path) -> list[dict[str, object]]:
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(row).items() if k not in timed} for row in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(sample: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("engine") / "whole"
    train(sample, run)
    return run


@pytest.fixture(scope="module")
def whole_with_all(sample: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("engine") / "all"
    train(sample, run, *MEAN)
    return run


@pytest.mark.parametrize(
    ("step", "place"),
    [(1, "step 2 of epoch 1"), (3, "the validation of epoch 1"), (5, "step 3 of epoch 2")],
)
def test_a_stage_stopped_inside_an_epoch_goes_on_as_if_it_had_not(
    whole: Path, sample: Manifest, tmp_path: Path, step: int, place: str
) -> None:
    words = stop_after(step, sample, tmp_path / "r")
    assert words == f"stopped; the same command goes on at {place} of stage coarse."
    state = read_state(checkpoints(tmp_path / "r" / "coarse" / "checkpoints")[-1])
    assert state.total_steps == step
    train(sample, tmp_path / "r")
    assert weights(tmp_path / "r") == weights(whole)
    assert without_time(tmp_path / "r" / "coarse" / "log.jsonl") == without_time(whole / "coarse" / "log.jsonl")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(
    whole: Path, sample: Manifest, tmp_path: Path
) -> None:
    stop_after(5, sample, tmp_path / "r")
    before, last = checkpoints(tmp_path / "r" / "coarse" / "checkpoints")
    (last / "optimizer.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=rf"optimizer\.safetensors is damaged; delete the folder {last}"):
        train(sample, tmp_path / "r")
    shutil.rmtree(last)
    assert before.name == "step-000003"
    train(sample, tmp_path / "r")
    assert weights(tmp_path / "r") == weights(whole)


def test_so_does_one_with_every_setting_of_the_engine(whole_with_all: Path, sample: Manifest, tmp_path: Path) -> None:
    stop_after(2, sample, tmp_path / "r", *MEAN)
    stop_after(2, sample, tmp_path / "r", *MEAN)  # the first of the second epoch
    train(sample, tmp_path / "r", *MEAN)
    assert weights(tmp_path / "r") == weights(whole_with_all)


def test_a_stop_during_validation_keeps_the_epochs_steps(whole: Path, sample: Manifest, tmp_path: Path) -> None:
    trained, asked = False, False

    def ask(module: nn.Module, _: object) -> None:
        nonlocal asked
        if trained and not module.training and not asked:
            asked = True
            signal.raise_signal(signal.SIGTERM)

    def end_of_epoch() -> None:
        nonlocal trained
        trained = True

    handle = register_module_forward_pre_hook(ask)
    try:
        with after_step(3, end_of_epoch), pytest.raises(Stopped, match="at the validation of epoch 1"):
            train(sample, tmp_path / "r")
    finally:
        handle.remove()
    train(sample, tmp_path / "r")
    assert weights(tmp_path / "r") == weights(whole)


def test_a_second_ctrl_c_does_not_wait(sample: Manifest, tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with after_step(1, twice), pytest.raises(KeyboardInterrupt):
        train(sample, tmp_path / "r")
    assert not checkpoints(tmp_path / "r" / "coarse" / "checkpoints")


def test_checkpoints_come_as_often_as_the_settings_say_and_few_stay(sample: Manifest, tmp_path: Path) -> None:
    often = ["engine.checkpoint_minutes=1e-9", "engine.keep_checkpoints=3", "coarse.epochs=3"]
    stop_after(7, sample, tmp_path / "r", *often)
    folder = tmp_path / "r" / "coarse" / "checkpoints"
    assert [path.name for path in checkpoints(folder)] == ["step-000005", "step-000006", "step-000007"]
    states = [read_state(path) for path in checkpoints(folder)]
    assert [(s.progress.epoch, s.progress.step, len(s.history)) for s in states] == [(1, 2, 2), (2, 0, 0), (2, 1, 1)]
    needed = {state.progress.best_epoch for state in states}
    assert {int(path.stem[5:]) for path in folder.glob("best-*")} == needed
    assert not list(folder.glob("*.part"))


def test_the_mean_of_the_weights_is_what_will_be_published(sample: Manifest, tmp_path: Path) -> None:
    stop_after(7, sample, tmp_path / "r", *MEAN, "engine.keep_checkpoints=3", "coarse.epochs=3")
    folder = tmp_path / "r" / "coarse" / "checkpoints"
    best_epoch = read_state(checkpoints(folder)[-1]).progress.best_epoch
    assert best_epoch in (1, 2)
    at_best = folder / f"step-{3 * best_epoch:06}"
    published = load_file(best_file(folder, best_epoch))
    mean, last = load_file(at_best / "mean.safetensors"), load_file(at_best / "network.safetensors")
    assert all(torch.equal(published[name], mean[f"module.{name}"]) for name in published)
    assert not all(torch.equal(published[name], last[name]) for name in published)


def test_the_log_has_the_rates_of_the_schedule(whole_with_all: Path) -> None:
    rows = without_time(whole_with_all / "coarse" / "log.jsonl")
    rates = [row["learning_rate"] for row in rows if "step" in row]
    assert rates[:3] == pytest.approx([1e-3, 2e-3, 2e-3])
    assert all(isinstance(a, float) and isinstance(b, float) and a > b for a, b in itertools.pairwise(rates[2:]))


def test_a_loss_that_is_no_number_names_its_images_and_spares_the_checkpoints(sample: Manifest, tmp_path: Path) -> None:
    settings = ["coarse.learning_rate=1e30", "engine.checkpoint_minutes=1e-9"]
    with pytest.raises(UserError) as refusal:
        train(sample, tmp_path / "r", *settings)
    words = str(refusal.value)
    assert "of stage coarse is not finite at step " in words
    images = words.partition("with the images ")[2].partition(";")[0].split(", ")
    assert len(images) == 8
    assert set(images) <= {str(sample.root / i.image) for i in sample.items if i.split == "training"}
    for checkpoint in checkpoints(tmp_path / "r" / "coarse" / "checkpoints"):
        assert all(t.isfinite().all() for t in load_file(checkpoint / "network.safetensors").values())


def test_two_trainings_in_one_run_folder_are_refused(sample: Manifest, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with (
        locked(tmp_path / "r"),
        pytest.raises(UserError, match=r"Another process is at work in .*r; wait for it, or name another --run\."),
    ):
        train(sample, tmp_path / "r")


def test_a_batch_that_micro_batches_cannot_share_is_refused(sample: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"by 1 process with engine\.accumulation = 4; make it a multiple of 4, at"):
        plan(sample, tmp_path / "r", "engine.accumulation=4")


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("engine.strategy=horovod", r"engine\.strategy is one of ddp, deepspeed"),
        ("engine.zero_stage=4", r"engine\.zero_stage is between 0 and 3"),
        ("engine.ema_decay=1", r"engine\.ema_decay is at least 0 and below 1"),
        ("engine.checkpoint_minutes=0", r"engine\.checkpoint_minutes is above 0"),
        ("engine.keep_checkpoints=0", r"engine\.keep_checkpoints is at least 1"),
    ],
)
def test_impossible_settings_are_refused(setting: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        override(preset("smoke"), [setting])


def test_another_strategy_cannot_take_up_a_checkpoint(whole: Path, sample: Manifest, tmp_path: Path) -> None:
    stop_after(1, sample, tmp_path / "r")
    state = checkpoints(tmp_path / "r" / "coarse" / "checkpoints")[-1] / "state.json"
    state.write_text(state.read_text().replace('"ddp"', '"deepspeed"'))
    with pytest.raises(UserError, match=r"was written with engine\.strategy=deepspeed; go on with that"):
        train(sample, tmp_path / "r")
