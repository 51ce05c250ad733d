"""What a search costs beyond its training, and two trials at once against one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from _measure import report

from mbdcnn.data.sample import write_sample

GOALS = {"overhead_share_of_10_minutes": "<= 0.05"}
SETTINGS = [
    "preprocessing.image_size=64",
    "network.decoder_channels=32",
    "engine.checkpoint_minutes=1000",
]
ROOT = Path(__file__).resolve().parents[1]


def measure(quick: bool) -> dict[str, float]:
    """Alternately, the same trials with all cores one after the other, and with a core each at once."""
    images, epochs, points, rounds = (32, 3, 2, 1) if quick else (480, 6, 6, 3)
    overheads, alone, both = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sample(folder / "data", {"training": images, "validation": images // 4}, size=160)
        options = ["--points", str(points), *SETTINGS, f"coarse.epochs={epochs}", f"coarse.patience={epochs}"]
        for number in range(rounds):
            searched, trained, trials = _search(folder, f"alone-{number}", "--at-once", "1", "--cpus", "2", *options)
            alone.append(searched)
            overheads.append((searched - trained) / trials)
            both.append(_search(folder, f"both-{number}", "--at-once", "2", "--cpus", "1", *options)[0])
            print(f"{alone[-1]:.1f} s one after the other, {both[-1]:.1f} s two at once", file=sys.stderr)
    return {
        "overhead_seconds_a_trial": median(overheads),
        "overhead_share_of_10_minutes": median(overheads) / 600,
        "two_at_once_over_one_after_the_other": median(alone) / median(both),
    }


def _search(folder: Path, name: str, *options: str) -> tuple[float, float, int]:
    """Search the sample; seconds from the first trial's start to the end, seconds of training, and trials."""
    out = folder / name
    words = ["tune", "--data", folder / "data", "--out", out, "--preset", "smoke", "--algorithm", "random", *options]
    # from the repository, where `tune` is the room and not this file
    command = [sys.executable, "-m", "mbdcnn", *map(str, words), "--space", "wide", "--seeds", "1", "--json"]
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
        began = 0.0
        while process.poll() is None:
            if not began and (out / "ray").is_dir():
                began = time.monotonic()
            time.sleep(0.02)
        assert process.stdout is not None
        ended, answer = time.monotonic(), process.stdout.read()
        process.stdout.close()
    if process.returncode:
        sys.exit(f"The search failed:\n{(folder / 'stderr').read_text()}")
    document = json.loads(answer)
    trials = [trial for point in document["points"] for trial in point["trials"]]
    return ended - began, sum(trial["seconds"] for trial in trials), len(trials)


if __name__ == "__main__":
    report("tune", measure, GOALS)
