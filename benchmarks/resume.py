"""Three stages and two processes, killed at random moments: does the same command end with the same weights?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import report

from mbdcnn import runs
from mbdcnn.config import STAGES
from mbdcnn.data.sample import write_sample

GOALS = {"identical_of_killed": ">= 1"}
SETTINGS = [
    "preprocessing.image_size=64",
    "network.decoder_channels=32",
    "engine.checkpoint_minutes=0.0001",  # one a step: many of the kills then fall into one
    *(f"{stage}.batch_size=8" for stage in STAGES),
    *(f"{stage}.epochs=2" for stage in STAGES),
]


def measure(quick: bool) -> dict[str, float]:
    """Kill 20 runs once each; with `quick` one run three times."""
    n_runs, kills_each = (1, 3) if quick else (20, 1)
    moments = random.Random(0)
    identical = kills = in_checkpoint = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sample(folder / "data", {"training": 24, "validation": 9}, size=160)
        whole = folder / "uninterrupted"
        start, begun = time.monotonic(), 0.0
        with _train(folder / "data", whole) as process:
            while process.poll() is None:
                if not begun and (whole / STAGES[0] / runs.CHECKPOINTS).is_dir():
                    begun = time.monotonic() - start
                time.sleep(0.05)
        _check(process)
        seconds = time.monotonic() - start
        print(f"uninterrupted: {seconds:.0f} s, of which {begun:.0f} s until the first step", file=sys.stderr)
        while kills < n_runs * kills_each:
            run, killed = folder / f"killed-{kills}", 0
            while killed < kills_each:
                delay = begun + moments.random() * (seconds - begun) / kills_each
                where = _kill_after(delay, folder / "data", run)
                if where is None:  # it was faster than the first one, and is over
                    break
                killed += 1
                in_checkpoint += "a checkpoint" in where
                print(f"killed after {delay:.1f} s, in {where}", file=sys.stderr)
            if not killed:
                continue
            with _train(folder / "data", run) as process:
                process.wait()
            _check(process)
            same = [_weights(run, stage) == _weights(whole, stage) for stage in STAGES]
            print(f"{run.name}: {'identical' if all(same) else f'DIFFERENT {same}'}", file=sys.stderr)
            identical += killed * all(same)
            kills += killed
    return {"identical_of_killed": identical / kills, "kills": kills, "kills_in_a_checkpoint": in_checkpoint}


def _train(data: Path, run: Path) -> subprocess.Popen[bytes]:
    words = ["train", "all", "--data", data, "--run", run, "--preset", "smoke", "--nproc", "2", *SETTINGS]
    command = [sys.executable, "-m", "mbdcnn", *map(str, words)]
    errors = run.with_suffix(".stderr").open("ab")
    with errors:
        return subprocess.Popen(command, stderr=errors, start_new_session=True)


def _kill_after(seconds: float, data: Path, run: Path) -> str | None:
    """Train for a while, kill all processes; where that was, None when the run was over before."""
    with _train(data, run) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            _check(process)
            return None
    begun = [stage for stage in STAGES if (run / stage).is_dir()]
    if not begun:
        return "the start"
    folder = run / begun[-1] / runs.CHECKPOINTS
    if list(folder.glob("*.part")):
        return f"a checkpoint of stage {begun[-1]}"
    last = max((path.name for path in folder.glob("step-*")), default="no step yet")
    return f"stage {begun[-1]} after {'its end' if runs.is_finished(run, begun[-1]) else last}"


def _check(process: subprocess.Popen[bytes]) -> None:
    if process.returncode:
        words = [str(word) for word in process.args] if isinstance(process.args, list) else []
        run = Path(words[words.index("--run") + 1])
        sys.exit(f"The training failed:\n{run.with_suffix('.stderr').read_text()}")


def _weights(run: Path, stage: str) -> bytes:
    return (run / stage / runs.WEIGHTS).read_bytes()


if __name__ == "__main__":
    report("resume", measure, GOALS)
