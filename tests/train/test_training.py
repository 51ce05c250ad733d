"""Stages through the command, as a user starts them: processes, resume, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.config import override
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError
from mbdcnn.presets import preset
from train.checkpoints import checkpoints as list_checkpoints
from train.plan import plan_run
from train.processes import Process, count_processes, run_processes

TINY = [
    "preprocessing.image_size=64",
    "precision=float32",
    "network.decoder_dropout=0",
    "network.decoder_channels=32",
    *(f"{stage}.batch_size=8" for stage in ("coarse", "mask", "enhanced")),
    *(f"{stage}.epochs=2" for stage in ("coarse", "mask", "enhanced")),
]


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "mbdcnn", *map(str, words)]


def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def train(stage: str, data: Path, folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run("train", stage, "--data", data, "--run", folder, "--preset", "smoke", *words, *TINY, code=code)


def log(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()]


def steps(folder: Path, stage: str) -> list[float]:
    return [row["loss"] for row in log(folder, stage) if "step" in row]


def checkpoints(folder: Path, stage: str = "coarse") -> list[Path]:
    return list_checkpoints(folder / stage / "checkpoints")


@pytest.fixture(scope="module")
def finished(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all stages, trained by one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train("all", sample_folder, folder)
    return folder


@pytest.mark.slow
def test_a_run_folder_holds_what_its_readers_need(finished: Path) -> None:
    for stage in ("coarse", "mask", "enhanced"):
        assert {p.name for p in (finished / stage).iterdir()} >= {
            "weights.safetensors",
            "config.yaml",
            "metrics.json",
            "log.jsonl",
        }
        assert not (finished / stage / "checkpoints").exists()  # nothing goes on from them
        metrics = json.loads((finished / stage / "metrics.json").read_text())
        epochs = [row for row in log(finished, stage) if "step" not in row]
        assert metrics["epochs"] == len(epochs) == 2
        best = max(row[metrics["score"]] for row in epochs)
        assert metrics["best"][metrics["score"]] == best
        assert len(metrics["data"]["fingerprint"]) == 64
        assert len(steps(finished, stage)) == 2 * 3
    masks = list((finished / "coarse" / "masks").rglob("*.png"))
    assert len(masks) == 24 + 9


@pytest.mark.slow
def test_a_second_call_trains_nothing(finished: Path, sample_folder: Path) -> None:
    before = (finished / "enhanced" / "weights.safetensors").stat().st_mtime_ns
    done = train("all", sample_folder, finished, "--json")
    assert done.stderr.count("is finished") == 3
    assert set(json.loads(done.stdout)["stages"]) == {"coarse", "mask", "enhanced"}
    assert (finished / "enhanced" / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("launcher", ["nproc", "torchrun"])
def test_two_processes_follow_the_curve_of_one(
    finished: Path, sample_folder: Path, tmp_path: Path, launcher: str
) -> None:
    """Half the batch each, batch norm over both: the same losses and weights, but for the order of float sums."""
    two = tmp_path / "two"
    if launcher == "nproc":
        train("all", sample_folder, two, "--nproc", "2")
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        words = ["train", "all", "--data", sample_folder, "--run", two, "--preset", "smoke", *TINY]
        subprocess.run([*torchrun, "-m", "--", "mbdcnn", *map(str, words)], check=True, timeout=300)
    # from the same start: the first stage depends on nothing before it
    torch.testing.assert_close(
        torch.tensor(steps(two, "coarse")), torch.tensor(steps(finished, "coarse")), rtol=2e-3, atol=2e-3
    )
    assert steps(two, "coarse")[0] == pytest.approx(steps(finished, "coarse")[0], abs=1e-5)
    for stage in ("mask", "enhanced"):
        torch.testing.assert_close(
            torch.tensor(steps(two, stage)), torch.tensor(steps(finished, stage)), rtol=5e-2, atol=5e-2
        )
    assert json.loads((two / "coarse" / "metrics.json").read_text())["environment"]["processes"] == 2


@pytest.mark.slow
def test_a_killed_stage_goes_on_and_ends_with_the_same_weights(
    finished: Path, sample_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    words = ["train", "coarse", "--data", sample_folder, "--run", folder, "--preset", "smoke", *TINY]
    process = subprocess.Popen(command(*words), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not checkpoints(folder) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, "the training was over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    train("coarse", sample_folder, folder)
    assert steps(folder, "coarse") == steps(finished, "coarse")
    ours, theirs = (load_file(f / "coarse" / "weights.safetensors") for f in (folder, finished))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


@pytest.mark.slow
def test_ctrl_c_is_one_line(sample_folder: Path, tmp_path: Path) -> None:
    words = ["train", "coarse", "--data", sample_folder, "--run", tmp_path / "r", "--preset", "smoke", *TINY]
    words = [w.replace("coarse.epochs=2", "coarse.epochs=500") if isinstance(w, str) else w for w in words]
    process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)
    while not checkpoints(tmp_path / "r") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("mbdcnn: stopped; the same command goes on")


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("to", ["group", "parent"])
def test_ctrl_c_stops_every_process(sample_folder: Path, tmp_path: Path, to: str) -> None:
    words = ["train", "coarse", "--data", sample_folder, "--run", tmp_path / "r", "--preset", "smoke", "--nproc", "2"]
    settings = [w.replace("coarse.epochs=2", "coarse.epochs=500") for w in TINY]
    process = subprocess.Popen(command(*words, *settings), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not checkpoints(tmp_path / "r") and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT) if to == "group" else process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def _fail_in_rank_one(process: Process) -> None:
    if process.rank == 1:
        raise UserError("rank 1 has found a mistake.")
    process.barrier()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_sentence_of_any_rank_reaches_the_user() -> None:
    with pytest.raises(UserError, match=r"rank 1 has found a mistake\."):
        run_processes(_fail_in_rank_one, 2)


@pytest.mark.slow
def test_damaged_files_of_a_run_are_named(finished: Path, sample: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    (folder / "mask" / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"mask/metrics\.json is damaged"):
        runs.provenance(folder)
    shutil.rmtree(folder / "mask")
    weights = folder / "coarse" / "weights.safetensors"
    good = weights.read_bytes()
    shutil.copy(folder / "enhanced" / "weights.safetensors", weights)
    with pytest.raises(UserError, match=r"coarse/weights\.safetensors does not fit .* e_layer"):
        runs.load_stage(folder, "coarse")
    weights.unlink()
    with (folder / "coarse" / "log.jsonl").open("a") as log:
        log.write('{"stage": "coarse", "ep')  # cut short
    train("coarse", sample.root, folder)  # from the start
    assert weights.read_bytes() == good
    assert steps(folder, "coarse") == steps(finished, "coarse")


@pytest.mark.slow
def test_stages_of_a_run_share_networks_input_and_data(finished: Path, sample: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(finished, folder)
    (folder / "enhanced" / "metrics.json").unlink()
    config = configuration.load(folder / "enhanced" / "config.yaml")
    plan_run(folder, ["enhanced"], config, sample)
    shutil.rmtree(folder / "enhanced")
    wider = override(config, ["network.decoder_channels=48"])
    with pytest.raises(UserError, match=r"stage coarse with other settings \(network\.decoder_channels"):
        plan_run(folder, ["enhanced"], wider, sample)
    with pytest.raises(UserError, match="is not the data that"):
        plan_run(folder, ["enhanced"], config, replace(sample, items=sample.items[1:]))


@pytest.mark.slow
def test_other_settings_for_a_begun_stage_are_refused(finished: Path, sample_folder: Path) -> None:
    done = train("coarse", sample_folder, finished, "loss.margin=0.1", code=2)
    assert "other settings (loss.margin" in done.stderr


@pytest.mark.slow
def test_the_preset_of_a_begun_run_is_remembered(finished: Path, sample_folder: Path) -> None:
    done = run("train", "enhanced", "--data", sample_folder, "--run", finished)
    assert "is finished" in done.stderr


@pytest.mark.parametrize(
    ("stages", "setting", "sentence"),
    [
        (["enhanced"], "seed=1", "There is no run folder"),
        (["coarse"], "coarse.batch_size=100", r"has 24 training images with a mask, fewer than coarse\.batch_size"),
        (["mask"], "mask.batch_size=100", r"has 24 training images with a label, fewer than mask\.batch_size"),
        (["coarse"], "coarse.batch_size=9", r"coarse\.batch_size = 9 cannot be shared by 2 processes"),
        (["coarse"], "network.weights=no.pth", r"there is no file or folder no\.pth"),
    ],
)
def test_what_a_stage_lacks_is_said_before_it_starts(
    sample: Manifest, tmp_path: Path, stages: list[str], setting: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        plan_run(tmp_path / "none", stages, override(preset("smoke"), [setting]), sample, world=2)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_split_without_masks_cannot_teach_segmentation(sample: Manifest, tmp_path: Path, split: str) -> None:
    items = tuple(replace(i, mask=None) if i.split == split else i for i in sample.items)
    with pytest.raises(UserError, match=f"has no {split} image with a mask; stage coarse needs some"):
        plan_run(tmp_path / "none", ["coarse"], preset("smoke"), replace(sample, items=items))


def test_the_number_of_processes_is_checked() -> None:
    assert count_processes("3") == 3
    for wrong in ("three", "0", "-1"):
        with pytest.raises(UserError, match=f"--nproc is {wrong}"):
            count_processes(wrong)
