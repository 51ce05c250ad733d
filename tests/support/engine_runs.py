"""What the engine's tests share: a small training in this process or another, and signals at an exact place in it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from mbdcnn.config import STAGES, override
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import Stopped
from mbdcnn.presets import preset
from train.plan import Plan, plan_run
from train.processes import run_processes
from train.stages import train_stages

TINY = [
    "preprocessing.image_size=64",
    "precision=float32",
    "network.decoder_channels=32",
    *(f"{stage}.batch_size=8" for stage in STAGES),
    *(f"{stage}.epochs=2" for stage in STAGES),
]  # three steps an epoch, and dropout as it is usual

# Kills everything of its process group at the N-th audit event whose arguments hold some text.
_KILLER = """
import os, signal, sys
event, text, left = os.environ["TEST_KILL_AT"].split("|")
left = int(left)

def hook(name, arguments):
    global left
    if name == event and any(text in str(a) for a in arguments):
        left -= 1
        if left == 0:
            os.killpg(os.getpgid(0), signal.SIGKILL)

sys.addaudithook(hook)
"""


def plan(sample: Manifest, run: Path, *settings: str) -> Plan:
    """A training of coarse-SN on the sample."""
    return plan_run(run, ["coarse"], override(preset("smoke"), [*TINY, *settings]), sample)


def train(sample: Manifest, run: Path, *settings: str) -> Path:
    """Train coarse-SN in this process; its stage folder."""
    run_processes(train_stages, 1, plan(sample, run, *settings), ["coarse"])
    return run / "coarse"


@contextmanager
def after_step(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something right after the optimizer's N-th step in the block."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if done == number:
            action()

    handle = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        handle.remove()


def stop_after(number: int, sample: Manifest, run: Path, *settings: str) -> str:
    """Train coarse-SN in this process with a SIGTERM after the N-th step; what was said."""
    with after_step(number, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped) as stopped:
        train(sample, run, *settings)
    assert stopped.value.signal == signal.SIGTERM
    return str(stopped.value)


def command(stage: str, data: Path, run: Path, *words: str | Path) -> list[str]:
    """The command that trains the same."""
    options = ["train", stage, "--data", data, "--run", run, "--preset", "smoke", *words, *TINY]
    return [sys.executable, "-m", "mbdcnn", *map(str, options)]


def call(words: list[str], code: int = 0) -> str:
    """Run a command to its end; its standard error."""
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def call_killed(words: list[str], event: str, text: str, count: int, folder: Path) -> None:
    """Run a command whose processes are all killed at an audit event."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_KILLER)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "TEST_KILL_AT": f"{event}|{text}|{count}", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, start_new_session=True)
    assert done.returncode == -signal.SIGKILL, f"{event} of {text} did not come: {done.stderr}"


def weights(run: Path, stage: str = "coarse") -> bytes:
    """What a stage published."""
    return (run / stage / "weights.safetensors").read_bytes()
