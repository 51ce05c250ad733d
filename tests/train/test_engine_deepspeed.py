"""The command with DeepSpeed on two processes: killed, stopped, taken up by fewer, and with bad numbers."""

import json
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from engine_runs import call, call_killed, command, weights

from train.checkpoints import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
OFTEN = "engine.checkpoint_minutes=1e-9"  # a checkpoint a step
MEAN = ["engine.ema_decay=0.5", "engine.accumulation=2", "engine.clip_norm=0.5", "engine.weight_decay=0.01"]
MEAN += ["engine.warmup_steps=2", "coarse.schedule=cosine"]


def _zero(stage: int) -> list[str]:
    return ["engine.strategy=deepspeed", f"engine.zero_stage={stage}", *MEAN]


@pytest.mark.parametrize("stage", [1, 3])
def test_a_killed_run_ends_with_the_same_weights_and_one_process_can_go_on(
    sample_folder: Path, tmp_path: Path, stage: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    words = [*_zero(stage), "--nproc", "2"]
    call(command("coarse", sample_folder, whole, *words))
    call_killed(
        command("coarse", sample_folder, cut, *words, OFTEN), "os.rename", "step-000005.part", 1, tmp_path / "s"
    )
    folder = cut / "coarse" / "checkpoints"
    assert [path.name for path in checkpoints(folder)] == ["step-000003", "step-000004"]
    shutil.copytree(cut, tmp_path / "alone")

    call(command("coarse", sample_folder, cut, *words))
    assert weights(cut) == weights(whole)

    heard = call(command("coarse", sample_folder, tmp_path / "alone", *_zero(stage)))
    assert "goes on with 2 -> 1 processes" in heard
    assert "epoch   1" not in heard
    metrics = json.loads((tmp_path / "alone" / "coarse" / "metrics.json").read_text())
    assert metrics["environment"]["processes"] == 1


def test_a_stopped_run_goes_on_with_its_own_zero_stage_alone(sample_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    many = [*command("coarse", sample_folder, run, *_zero(2), "--nproc", "2"), "coarse.epochs=500"]
    process = subprocess.Popen(many, stderr=subprocess.PIPE, text=True)
    while not checkpoints(run / "coarse" / "checkpoints") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, heard = process.communicate(timeout=300)
    assert process.returncode == 143, heard
    place = r"(step [23]|the validation) of epoch \d+ of stage coarse\."
    assert re.fullmatch(rf"mbdcnn: stopped; the same command goes on at {place}", heard.splitlines()[-1])
    assert "Terminating process" not in heard
    other = [*command("coarse", sample_folder, run, *_zero(1), "--nproc", "2"), "coarse.epochs=500"]
    heard = call(other, code=2)
    assert "was written with engine.zero_stage=2, and cannot go on with 1; set engine.zero_stage=2." in heard


def test_a_loss_that_is_no_number_names_the_images_of_its_process(sample_folder: Path, tmp_path: Path) -> None:
    words = ["engine.strategy=deepspeed", "--nproc", "2", OFTEN, "coarse.learning_rate=1e30"]
    heard = call(command("coarse", sample_folder, tmp_path / "r", *words), code=2)
    line = heard.splitlines()[-1]
    assert line.startswith("mbdcnn: The ")
    assert "of stage coarse is not finite at step " in line
    assert str(sample_folder) in line
    assert checkpoints(tmp_path / "r" / "coarse" / "checkpoints")


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_no_half(sample_folder: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000_000, 12_000_000))

    words = command("coarse", sample_folder, tmp_path / "r", "engine.strategy=deepspeed", "--nproc", "2", OFTEN)
    full = subprocess.run(words, preexec_fn=limit, stderr=subprocess.PIPE, text=True, timeout=600)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    folder = tmp_path / "r" / "coarse" / "checkpoints"
    expected = rf"mbdcnn: (Process 1: )?{folder}/step-000001\.part/zero: File not written whole; name another place, .*"
    assert re.fullmatch(expected, full.stderr.splitlines()[-1])
    assert not list(folder.glob("*"))
