"""What a stage shows and logs, through the monitor as the engine calls it: real tensors, files and processes."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mbdcnn import config as configuration
from mbdcnn.config import override
from mbdcnn.errors import UserError
from mbdcnn.presets import preset
from mbdcnn.status import run_status
from train import _log
from train.monitor import Monitor
from train.processes import Process
from train.progress import Progress

STEPS = 4  # an epoch
CONFIG = override(preset("smoke"), ["coarse.epochs=3"])
FIRST = Process(0, 1, torch.device("cpu"))


def begin(folder: Path, resumed: Progress, process: Process = FIRST) -> Monitor:
    folder.mkdir(parents=True, exist_ok=True)
    configuration.save(CONFIG, folder / "config.yaml")
    return Monitor("coarse", folder, CONFIG, STEPS, process, resumed)


def do_steps(monitor: Monitor, steps: Sequence[int], mark: float = 0.0) -> list[dict[str, float]]:
    """Steps whose loss is their number, plus a mark of who did them."""
    for step in steps:
        losses = {"loss": torch.tensor(step + mark), "dice": torch.tensor(0.5)}
        monitor.step_done(losses, 16)
    return [
        {"learning_rate": 0.1 * step, "loss": step + mark, "dice": 0.5, "gradient_norm": 2.0 * step} for step in steps
    ]


def end_epoch(monitor: Monitor, before: Progress, rows: Sequence[dict[str, float]]) -> Progress:
    epoch, score = before.epoch + 1, 0.5 + before.epoch / 10
    after = Progress(epoch, 0, epoch, {"JA": score}, before.seconds + 1.5)
    monitor.epoch_ends(after, {"loss": 7.0, "dice": 0.5}, after.best, rows)
    return after


def do_epoch(monitor: Monitor, before: Progress, mark: float = 0.0) -> Progress:
    monitor.epoch_begins(before.epoch, 0)
    first = before.epoch * STEPS + 1
    rows = do_steps(monitor, range(first, first + STEPS), mark)
    examples = torch.zeros(5, 3, 32, 32)
    monitor.pictures(examples, torch.ones(5, 1, 32, 32), torch.ones(5, 1, 32, 32), [])
    return end_epoch(monitor, before, rows)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0})
    found.Reload()
    return found


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, pytest.approx(point.value)) for point in events(folder).Scalars(tag)]


def test_an_epoch_is_logged_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = begin(tmp_path, Progress())
    do_epoch(monitor, Progress())
    monitor.close()
    *steps, epoch = log(tmp_path)
    assert steps == [
        {
            "stage": "coarse",
            "epoch": 1,
            "step": step,
            "learning_rate": 0.1 * step,
            "loss": step,
            "dice": 0.5,
            "gradient_norm": 2.0 * step,
        }
        for step in (1, 2, 3, 4)
    ]
    assert epoch.pop("images_per_second") > 0
    assert epoch == {"stage": "coarse", "epoch": 1, "loss": 7.0, "dice": 0.5, "JA": 0.5, "seconds": 1.5}
    said = capsys.readouterr().err  # no terminal: no bar, a line an epoch
    assert said == "coarse   epoch   1  loss 7.0000  dice 0.5000  JA 0.5000  2 s *\n"


def test_tensorboard_tells_what_the_log_tells(tmp_path: Path) -> None:
    monitor = begin(tmp_path, Progress())
    do_epoch(monitor, do_epoch(monitor, Progress()))
    monitor.close()
    assert curve(tmp_path, "step/loss") == [(step, float(step)) for step in range(1, 9)]
    assert curve(tmp_path, "step/gradient_norm") == [(step, 2.0 * step) for step in range(1, 9)]
    assert curve(tmp_path, "step/learning_rate") == [(step, 0.1 * step) for step in range(1, 9)]
    assert curve(tmp_path, "epoch/JA") == [(4, 0.5), (8, 0.6)]
    speeds = [row["images_per_second"] for row in log(tmp_path) if "step" not in row]
    assert curve(tmp_path, "epoch/images_per_second") == [(4, speeds[0]), (8, speeds[1])]


def test_a_picture_shows_images_with_both_outlines(tmp_path: Path) -> None:
    monitor = begin(tmp_path, Progress())
    spec = CONFIG.preprocessing
    colour = torch.tensor([200, 120, 40]) / 255
    images = ((colour - torch.tensor(spec.mean)) / torch.tensor(spec.std))[:, None, None].expand(6, 3, 96, 96)
    disc = ((torch.arange(96) - 48.0) ** 2)[:, None] + ((torch.arange(96) - 48.0) ** 2)[None]
    truth, found = ((disc < radius**2).float().expand(6, 1, 96, 96) for radius in (30, 15))
    monitor.pictures(images, truth, found, [f"image {i}" for i in range(6)])
    monitor.close()
    (event,) = events(tmp_path).Images("validation")
    picture = torch.tensor(np.array(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))).flatten(0, 1)
    counts = {
        name: int((picture == torch.tensor(rgb)).all(1).sum())
        for name, rgb in {"skin": (200, 120, 40), "true": (0x22, 0xD3, 0xEE), "found": (0xFF, 0x8A, 0x1F)}.items()
    }
    assert counts["skin"] > 0.7 * len(picture), "four panels fill most of the picture, in the images' own colour"
    assert counts["true"] > counts["found"] > 100, "a full line, and a dashed one around a smaller disc"


def test_without_masks_a_picture_has_titles_alone(tmp_path: Path) -> None:
    monitor = begin(tmp_path, Progress())
    monitor.pictures(torch.zeros(1, 3, 64, 64), None, None, ["melanoma, found nevus"])
    monitor.close()
    (event,) = events(tmp_path).Images("validation")
    assert event.height < event.width * 1.5


def test_what_no_checkpoint_holds_is_dropped_at_a_resume(tmp_path: Path) -> None:
    killed = begin(tmp_path, Progress())
    held = do_epoch(killed, Progress())
    do_epoch(killed, held)  # after the last checkpoint
    killed.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "coarse", "epoch": 3, "st')
    again = begin(tmp_path, held)
    do_epoch(again, held, mark=0.25)
    again.close()
    expected = [*range(1, 5), *(step + 0.25 for step in range(5, 9))]
    assert [row["loss"] for row in log(tmp_path) if "step" in row] == expected
    assert [row["epoch"] for row in log(tmp_path) if "step" not in row] == [1, 2]
    assert curve(tmp_path, "step/loss") == list(zip(range(1, 9), expected, strict=True))
    assert curve(tmp_path, "epoch/JA") == [(4, 0.5), (8, 0.6)]
    assert [picture.step for picture in events(tmp_path).Images("validation")] == [4, 8]


def test_an_epoch_that_was_resumed_inside_is_logged_whole(tmp_path: Path) -> None:
    killed = begin(tmp_path, Progress())
    one = do_epoch(killed, Progress())
    killed.epoch_begins(1, 0)
    held = do_steps(killed, [5, 6])  # in a checkpoint
    do_steps(killed, [7])  # in none
    killed.close()
    inside = replace(one, step=2)
    again = begin(tmp_path, inside)
    again.epoch_begins(1, 2)
    end_epoch(again, inside, [*held, *do_steps(again, [7, 8], mark=0.25)])
    again.close()
    rows = [(row["epoch"], row["step"], row["loss"]) for row in log(tmp_path) if "step" in row]
    assert rows[3:] == [(1, 4, 4), (2, 5, 5), (2, 6, 6), (2, 7, 7.25), (2, 8, 8.25)]
    assert [step for step, _ in curve(tmp_path, "step/loss")] == [*range(1, 9)]
    assert curve(tmp_path, "step/gradient_norm")[4:] == [(5, 10.0), (6, 12.0), (7, 14.0), (8, 16.0)]


def test_a_log_that_nothing_is_wrong_with_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    _log.append(path, [{"epoch": 1, "step": 1}, {"epoch": 2, "step": 2}])
    before = path.stat()
    _log.forget_after(path, 2)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    _log.forget_after(path, 1)
    assert path.read_text() == '{"epoch": 1, "step": 1}\n'


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    monitor = begin(tmp_path, Progress(), Process(1, 2, torch.device("cpu")))
    do_epoch(monitor, Progress())
    monitor.close()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_progress_is_left_for_others_to_read(tmp_path: Path) -> None:
    monitor = begin(tmp_path, Progress(seconds=100.0))
    monitor.epoch_begins(0, 0)
    do_steps(monitor, [1, 2])
    monitor.close()
    document = json.loads((tmp_path / "progress.json").read_text())
    assert {key: document[key] for key in ("epoch", "epochs", "step", "steps_per_epoch", "stopped")} == {
        "epoch": 0,
        "epochs": 3,
        "step": 2,
        "steps_per_epoch": 4,
        "stopped": True,
    }
    assert 100 <= document["seconds"] < 160
    assert abs(time.time() - document["time"]) < 60


def test_the_status_of_a_watched_run(tmp_path: Path) -> None:
    monitor = begin(tmp_path / "coarse", Progress())
    one = do_epoch(monitor, Progress())
    monitor.epoch_begins(1, 0)
    do_steps(monitor, [5, 6])
    monitor.close()
    (coarse, *_) = run_status(tmp_path).stages
    assert (coarse.state, coarse.epoch, coarse.epochs, coarse.step, coarse.steps_per_epoch) == ("stopped", 1, 3, 6, 4)
    assert (coarse.score, coarse.best, coarse.best_epoch) == ("JA", 0.5, 1)
    assert coarse.seconds >= one.seconds
    begin(tmp_path / "coarse", one).close()  # goes on from the checkpoint of the first epoch
    assert run_status(tmp_path).stages[0].step == 4


WATCHED = """
import sys, time, torch
from pathlib import Path
from mbdcnn.errors import UserError
from test_monitor import Progress, begin, do_epoch
monitor = begin(Path(sys.argv[1]), Progress())
def slowly(losses, *others, done=monitor.step_done):
    time.sleep(0.7)
    done(losses, *others)
monitor.step_done = slowly
do_epoch(monitor, do_epoch(monitor, Progress()))
monitor.close()
"""


def python(code: str, *words: str | Path) -> list[str]:
    here = Path(__file__).parent
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(here)!r})\n{code}", *map(str, words)]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 120), (0, 0)])
def test_a_terminal_shows_a_bar(tmp_path: Path, size: tuple[int, int]) -> None:
    """With the epoch, the time left, losses, speed and validation; also where the terminal does not tell its size."""
    ours, theirs = pty.openpty()
    if all(size):
        import termios

        termios.tcsetwinsize(theirs, size)
    process = subprocess.Popen(python(WATCHED, tmp_path), stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # its end
            break
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    frames = shown.decode().replace("\r", "\n").split("\n")
    (last, *_) = [line for line in reversed(frames) if line.startswith("coarse 2/3 |") and "loss" in line]
    for part in ("JA 0.600", "dice 0.500", " img/s", "<00:0"):
        assert part in last
    assert [line[:18] for line in frames if "epoch " in line] == ["coarse   epoch   1", "coarse   epoch   2"]


FULL = """
import resource, signal, sys
from pathlib import Path
from mbdcnn.errors import UserError
from test_monitor import Progress, begin, do_epoch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
monitor = begin(Path(sys.argv[1]), Progress())
progress = do_epoch(monitor, Progress())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    while progress.epoch < 200:
        progress = do_epoch(monitor, progress)
except UserError as error:
    print(error, file=sys.stderr)
monitor.close()
"""


@pytest.mark.slow
def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    """One of TensorBoard's thread, which may say it at any time, and one of the log, where the training stops."""
    done = subprocess.run(python(FULL, tmp_path, 20_000), capture_output=True, text=True, timeout=300)
    said = [line for line in done.stderr.splitlines() if "epoch " not in line]
    assert sorted(said) == [
        f"{tmp_path / 'log.jsonl'} cannot be written (File too large); "
        "mend its permissions or space, and the same command goes on.",
        "mbdcnn: TensorBoard's file is not written any more ([Errno 27] File too large); the training goes on.",
    ], done.stderr
    assert done.returncode == 0
    whole = len([row for row in (tmp_path / "log.jsonl").read_text().splitlines() if row.endswith("}")])
    assert whole > 2 * (STEPS + 1)


def test_the_training_goes_on_without_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").touch()
    monitor = begin(tmp_path, Progress())
    do_epoch(monitor, Progress())
    monitor.close()
    assert len(log(tmp_path)) == STEPS + 1
    assert "mbdcnn: TensorBoard's file is not written any more ([Errno 17] File exists" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    monitor = begin(tmp_path, Progress())
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written \(Is a directory\); mend"):
        do_epoch(monitor, Progress())
    monitor.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    monitor = begin(tmp_path, Progress(), Process(0, 1, device))
    monitor.epoch_begins(0, 0)
    losses = {"loss": torch.ones((), device=device)}
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STEPS):
            monitor.step_done(losses, 16)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    end_epoch(monitor, Progress(), [{"loss": 1.0}] * STEPS)
    monitor.close()
    assert len(log(tmp_path)) == STEPS + 1
