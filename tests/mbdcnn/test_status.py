"""`mbdcnn status`: run folders at every moment of their life."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mbdcnn import config as configuration
from mbdcnn._status_table import duration, status_table
from mbdcnn.config import Config, override
from mbdcnn.errors import UserError
from mbdcnn.presets import preset
from mbdcnn.status import StageStatus, run_status

CONFIG = override(preset("smoke"), ["coarse.epochs=4", "mask.epochs=5", "enhanced.epochs=6"])
STEPS = 3  # an epoch


def begin(folder: Path, config: Config = CONFIG) -> None:
    folder.mkdir(parents=True)
    configuration.save(config, folder / "config.yaml")


def train(folder: Path, scores: list[float], name: str = "JA", seconds: float = 10.0, further: int = 0) -> None:
    """Leave the log of whole epochs, and of further steps."""
    rows: list[dict[str, Any]] = []
    for epoch, score in enumerate(scores, 1):
        rows += [{"stage": "s", "epoch": epoch, "step": (epoch - 1) * STEPS + i + 1} for i in range(STEPS)]
        rows += [{"stage": "s", "epoch": epoch, "loss": 0.5, name: score, "seconds": seconds * epoch}]
    done = len(scores)
    rows += [{"stage": "s", "epoch": done + 1, "step": done * STEPS + i + 1} for i in range(further)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def beat(folder: Path, step: int, seconds: float, stopped: bool = False, ago: float = 0.0) -> None:
    document = {"step": step, "steps_per_epoch": STEPS, "seconds": seconds, "images_per_second": 12.5}
    (folder / "progress.json").write_text(json.dumps(document | {"stopped": stopped, "time": time.time() - ago}))


def finish(folder: Path, seconds: float) -> None:
    (folder / "weights.safetensors").touch()
    (folder / "metrics.json").write_text(json.dumps({"seconds": seconds}))


def by_name(run: Path) -> dict[str, StageStatus]:
    return {stage.name: stage for stage in run_status(run).stages}


def test_a_run_half_way(tmp_path: Path) -> None:
    begin(tmp_path / "coarse")
    train(tmp_path / "coarse", [0.5, 0.75, 0.625])
    finish(tmp_path / "coarse", 31.0)
    begin(tmp_path / "mask")
    train(tmp_path / "mask", [0.875, 0.8125], "mean_AUC", further=1)
    beat(tmp_path / "mask", step=8, seconds=24.0)
    (tmp_path / "manifest.json").write_text(json.dumps({"root": "/data/my images"}))
    stages = by_name(tmp_path)
    coarse, mask, enhanced = stages["coarse"], stages["mask"], stages["enhanced"]
    assert (coarse.state, coarse.epoch, coarse.epochs, coarse.seconds, coarse.seconds_left) == ("finished", 3, 4, 31, 0)
    assert (coarse.score, coarse.best, coarse.best_epoch) == ("JA", 0.75, 2)
    assert (mask.state, mask.epoch, mask.step, mask.steps_per_epoch) == ("in progress", 2, 8, 3)
    assert (mask.score, mask.best, mask.best_epoch) == ("mean_AUC", 0.875, 1)
    assert mask.seconds_left == 24 / 8 * (5 * STEPS - 8)
    assert mask.silent_seconds is not None
    assert mask.silent_seconds < 60
    # as long an epoch as coarse-SN's, which is the same network but for the map
    assert (enhanced.state, enhanced.seconds_left) == ("not begun", round(31 / 3 * 6, 1))
    status = run_status(tmp_path)
    assert status.seconds == 55.0
    assert status.seconds_left == 21 + 62
    assert status.next == "mask is being trained, then enhanced"
    lines = status_table(status).splitlines()
    assert lines[2].split() == ["stage", "state", "best", "spent", "left"]
    assert [" ".join(line.split()) for line in lines[3:6]] == [
        "coarse finished after 3 epochs JA 0.7500, epoch 2 31 s",
        "mask epoch 3/5, step 2/3, 12.5 images/s mean_AUC 0.8750, epoch 1 24 s 21 s",
        "enhanced not begun 62 s",
    ]
    assert lines[-2] == "55 s spent, at most 83 s left"


def test_a_log_alone_tells_how_far_a_stage_is(tmp_path: Path) -> None:
    """As a run leaves it whose trainer wrote no progress.json."""
    begin(tmp_path / "coarse")
    train(tmp_path / "coarse", [0.5], further=2)
    with (tmp_path / "coarse" / "log.jsonl").open("a") as log:
        log.write('{"stage": "coarse", "epoch": 2, "st')  # just being written
    (coarse, *_) = run_status(tmp_path).stages
    assert (coarse.state, coarse.epoch, coarse.step, coarse.steps_per_epoch) == ("in progress", 1, 5, 3)
    assert (coarse.seconds, coarse.seconds_left, coarse.silent_seconds) == (10, 14, None)


def test_the_first_epoch_has_no_score_and_no_end_in_sight(tmp_path: Path) -> None:
    begin(tmp_path / "coarse")
    (coarse, *_) = run_status(tmp_path).stages
    assert (coarse.state, coarse.epoch, coarse.best, coarse.seconds_left) == ("in progress", 0, None, None)
    assert "an unknown time left" in status_table(run_status(tmp_path))


def test_a_stage_that_was_stopped_says_how_it_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    begin(run / "coarse")
    train(run / "coarse", [0.5])
    beat(run / "coarse", step=4, seconds=14.0, stopped=True)
    status = run_status(run)
    assert status.stages[0].state == "stopped"
    assert status.next == f"coarse goes on: mbdcnn train all --run '{run}' --data DIR"
    assert "stopped in epoch 2/4, step 1/3" in status_table(status)


def test_a_trainer_that_was_killed_is_silent(tmp_path: Path) -> None:
    begin(tmp_path / "coarse")
    beat(tmp_path / "coarse", step=2, seconds=5.0, ago=7200)
    assert "epoch 1/4, step 2/3, silent for 2 h 00 min" in status_table(run_status(tmp_path))


def test_rounds_and_folds_are_stages_of_their_own(tmp_path: Path) -> None:
    config = override(CONFIG, ["bootstrap.rounds=2", "bootstrap.coarse_folds=2"])
    begin(tmp_path / "coarse", config)
    train(tmp_path / "coarse", [0.5] * 4)
    finish(tmp_path / "coarse", 40.0)
    begin(tmp_path / "coarse" / "masks-2-folds" / "fold-1" / "coarse", config)
    names = ["coarse", "coarse, fold 1", "coarse, fold 2", "mask", "enhanced", "mask, round 2", "enhanced, round 2"]
    stages = by_name(tmp_path)
    assert list(stages) == names
    assert [stages[name].state for name in names] == ["finished", "in progress", *["not begun"] * 5]
    assert stages["coarse, fold 2"].seconds_left == 40.0


def test_a_finished_run_says_what_comes_next(tmp_path: Path) -> None:
    for stage in ("coarse", "mask", "enhanced"):
        begin(tmp_path / stage)
        train(tmp_path / stage, [0.5])
        finish(tmp_path / stage, 10.0)
    status = run_status(tmp_path)
    assert status.seconds_left == 0
    assert status.next.endswith(f"mbdcnn evaluate --run {tmp_path} --data DIR")
    assert "30 s spent\n" in status_table(status)


@pytest.mark.parametrize(("leaks", "words"), [([], "no leakage found"), ([1], "1 pair of"), ([1, 2], "2 pairs of")])
def test_the_data_and_its_leakage_are_named(tmp_path: Path, leaks: list[int], words: str) -> None:
    begin(tmp_path / "coarse")
    assert run_status(tmp_path).data is None
    document = {"name": "isic", "fingerprint": "0123456789abcdef", "leakage": leaks}
    (tmp_path / "fingerprint.json").write_text(json.dumps(document))
    first = status_table(run_status(tmp_path)).splitlines()[0]
    assert "isic (0123456789ab)" in first
    assert words in first


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "progress.json", "fingerprint.json", "manifest.json"])
def test_files_that_are_just_being_written_are_no_mistake(tmp_path: Path, name: str) -> None:
    begin(tmp_path / "coarse")
    begin(tmp_path / "mask")
    train(tmp_path / "mask", [0.5])
    beat(tmp_path / "mask", 1, 1.0)
    for content in (b"", b"{", b'{"stage": 1}\n[]\n', b"\xff\xfe"):
        place = tmp_path if name in ("fingerprint.json", "manifest.json") else tmp_path / "mask"
        (place / name).write_bytes(content)
        status_table(run_status(tmp_path))


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no run folder"):
        run_status(tmp_path / "none")
    with pytest.raises(UserError, match="has no stage that has begun"):
        run_status(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (99.6, "2 min"), (5999, "1 h 40 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_command_answers_in_json_and_imports_no_network(tmp_path: Path) -> None:
    begin(tmp_path / "coarse")
    train(tmp_path / "coarse", [0.5])
    words = [sys.executable, "-W", "error", "-X", "importtime", "-m", "mbdcnn", "status", str(tmp_path)]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=120, check=True)
    document = json.loads(done.stdout)
    assert [stage["stage"] for stage in document["stages"]] == ["coarse", "mask", "enhanced"]
    assert document["stages"][0]["best"] == 0.5
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "mbdcnn.status" in imported
    assert not imported & {"torch", "timm", "matplotlib", "nvidia"}
