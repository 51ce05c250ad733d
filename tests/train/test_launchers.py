"""The command under torchrun and deepspeed, as several machines start it: here each is an agent on this one."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_runs import call, command, weights

from mbdcnn.errors import UserError
from train.checkpoints import checkpoints
from train.processes import Process, run_processes

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _machine(rank: int, port: str, words: list[str], folder: Path) -> subprocess.Popen[str]:
    """One of two machines' torchrun, in a folder of its own."""
    folder.mkdir()
    agent = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
    agent += ["--master-addr", "127.0.0.1", "--master-port", port, "-m", "--", *words]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *agent]
    return subprocess.Popen(torchrun, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _two_machines(words: list[str], folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each."""
    port = _free_port()
    machines = [_machine(rank, port, words, folder / f"machine-{rank}") for rank in (0, 1)]
    said = [machine.communicate(timeout=600) for machine in machines]
    return [(machine.returncode, *both) for machine, both in zip(machines, said, strict=True)]


def _losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "coarse" / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "step" in row]


@pytest.fixture(scope="module")
def zero(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that the command itself started, with DeepSpeed."""
    run = tmp_path_factory.mktemp("launchers") / "zero"
    call(command("coarse", sample_folder, run, "--nproc", "2", "engine.strategy=deepspeed"))
    return run


def test_two_machines_train_as_two_processes_and_one_speaks(sample_folder: Path, tmp_path: Path) -> None:
    words = command("coarse", sample_folder, tmp_path / "r", "--json")[2:]
    (code, out, err), (other_code, other_out, other_err) = _two_machines(words, tmp_path)
    assert (code, other_code) == (0, 0), err + other_err
    assert (other_out, other_err) == ("", "")
    environment = json.loads(out)["stages"]["coarse"]["environment"]
    assert (environment["processes"], environment["strategy"]) == (2, "ddp")
    assert "coarse   epoch   2" in err
    call(command("coarse", sample_folder, tmp_path / "here", "--nproc", "2"))
    assert _losses(tmp_path / "r") == pytest.approx(_losses(tmp_path / "here"), rel=2e-3)


def test_machines_that_do_not_share_the_run_folder_are_refused(sample_folder: Path, tmp_path: Path) -> None:
    words = command("coarse", sample_folder, Path("r"))[2:]
    (code, _, err), (other_code, _, _) = _two_machines(words, tmp_path)
    assert code != 0
    assert other_code != 0
    folder = tmp_path / "machine-0" / "r"
    assert f"mbdcnn: Process 1 does not see what process 0 writes to {folder}; name a --run on storage" in err
    assert not (tmp_path / "machine-1" / "r" / "coarse").exists()


def test_deepspeeds_own_launcher(sample_folder: Path, tmp_path: Path, zero: Path) -> None:
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--master_port"]
    words = command("coarse", sample_folder, tmp_path / "r", "engine.strategy=deepspeed")[2:]
    call([*launcher, _free_port(), "--module", *words])
    assert weights(tmp_path / "r") == weights(zero)
    environment = json.loads((tmp_path / "r" / "coarse" / "metrics.json").read_text())["environment"]
    assert environment["zero_stage"] == 1
    assert environment["deepspeed"].count(".") == 2


def test_of_a_file_that_has_gone_the_process_that_reads_it_tells(sample_folder: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "r"
    shutil.copytree(sample_folder, data)
    words = command("coarse", data, run, "coarse.patience=500")[2:]
    words[words.index("coarse.epochs=2")] = "coarse.epochs=500"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    process = subprocess.Popen([*torchrun, *words], stderr=subprocess.PIPE, text=True)
    while not checkpoints(run / "coarse" / "checkpoints") and process.poll() is None:
        time.sleep(0.05)
    gone = next((data / "ISIC-2017_Training_Data").glob("*.jpg"))
    gone.unlink()
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert re.search(rf"^mbdcnn: (rank 1: )?{gone} cannot be read \(No such file", err, re.MULTILINE), err
    ours = [line for line in err.splitlines() if line.startswith(("mbdcnn: ", "[rank"))]
    assert all(re.match(r"mbdcnn: (rank 1: )?(lost the connection|.* cannot be read)", line) for line in ours), err
    assert checkpoints(run / "coarse" / "checkpoints")


def test_a_launcher_that_does_not_say_where_to_meet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"RANK and WORLD_SIZE are set, and MASTER_ADDR not; start the processes with"):
        run_processes(print, 2)


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])
def test_cores_are_shared_with_the_processes_of_the_same_machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cores = len(os.sched_getaffinity(0))
    process = Process(0, 4 * cores, torch.device("cpu"))
    assert process.threads == 1
    monkeypatch.setenv(name, "1")
    assert process.threads == cores
