"""SIGTERM and Ctrl-C from outside: one line, a checkpoint of the step, the exit code that a shell expects."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_runs import command

from train.checkpoints import checkpoints, read_state

pytestmark = pytest.mark.slow


def begun(words: list[str], run: Path) -> subprocess.Popen[str]:
    """A training that has done a first epoch of very many."""
    words = [*words, "coarse.epochs=500", "coarse.patience=500"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not checkpoints(run / "coarse" / "checkpoints") and process.poll() is None:
        time.sleep(0.05)
    return process


def said(process: subprocess.Popen[str]) -> list[str]:
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    return [line for line in errors.splitlines() if line.startswith("mbdcnn:")]


@pytest.mark.multiprocess
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_signal_ends_the_step_and_says_where_the_command_goes_on(
    sample_folder: Path, tmp_path: Path, processes: str, number: int, code: int
) -> None:
    run = tmp_path / "r"
    process = begun(command("coarse", sample_folder, run, "--nproc", processes), run)
    process.send_signal(number)
    (line,) = said(process)
    assert process.returncode == code
    where = r"(step (\d)|the validation) of epoch (\d+) of stage coarse"
    place = re.fullmatch(rf"mbdcnn: stopped; the same command goes on at {where}\.", line)
    assert place, line
    state = read_state(checkpoints(run / "coarse" / "checkpoints")[-1])
    assert state.progress.epoch == int(place[3]) - 1
    assert state.progress.step == (int(place[2]) - 1 if place[2] else 3)
    assert state.processes == int(processes)


@pytest.mark.multiprocess
def test_torchrun_passes_a_signal_on(sample_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    process = begun([*torchrun, *command("coarse", sample_folder, run)[2:]], run)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    lines = [line for line in errors.splitlines() if line.startswith("mbdcnn:")]
    assert len(lines) == 1, errors
    assert "goes on at" in lines[0]
    assert process.returncode != 0
    assert not list((run / "coarse" / "checkpoints").glob("*.part"))


@pytest.mark.multiprocess
def test_a_killed_process_is_named(sample_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    process = begun(command("coarse", sample_folder, run, "--nproc", "2"), run)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(max(workers), signal.SIGKILL)
    (line,) = said(process)
    assert process.returncode == 2
    assert re.match(r"mbdcnn: Process [01] was killed, perhaps for want of memory; the same command goes on", line)
