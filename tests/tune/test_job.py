"""A search as a job of a real cluster: killed in the middle with its driver, a trial and the head, it goes on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_cluster import Head, find
from tuning import TINY

from mbdcnn.config import load
from mbdcnn.data.manifest import Manifest
from train.checkpoints import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

ROOT = Path(__file__).parents[2]
WAIT_S = 300


@pytest.fixture
def heads() -> Iterator[list[Head]]:
    started: list[Head] = []
    yield started
    for head in started:
        head.kill()


def events(out: Path) -> dict[str, list[dict[str, object]]]:
    """Each trial's log, by its folder's name."""
    files = out.glob("trials/*/trial.jsonl")
    return {file.parent.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def names(rows: list[dict[str, object]]) -> list[object]:
    return [row["event"] for row in rows]


def wait_for(what: Callable[[], bool], job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert job.poll() is None, job.stdout and job.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_search_goes_on_after_its_driver_a_trial_and_the_head_were_killed(
    sample: Manifest, tmp_path: Path, heads: list[Head]
) -> None:
    out = tmp_path / "out"
    words = ["python", "tune/search.py", "--data", sample.root, "--out", out, "--preset", "smoke", "--prepared", "none"]
    words += ["--algorithm", "random", "--points", "4", *TINY, "coarse.epochs=20", "coarse.patience=20"]
    words += ["--space", "wide"]
    heads.append(Head(cpus=2))
    first = heads[0].submit(ROOT, *words)
    wait_for(lambda: any("is finished" in names(rows) for rows in events(out).values()) and len(events(out)) > 2, first)
    (driver,) = find("tune/search.py", "--data", str(sample.root))
    os.kill(driver, signal.SIGKILL)
    first.communicate(timeout=WAIT_S)
    assert first.returncode != 0
    before = events(out)
    done = {name for name, rows in before.items() if "is finished" in names(rows)}
    assert 1 <= len(done) < 4
    assert not (out / "best.yaml").exists()
    heads[0].kill()

    heads.append(Head(cpus=2))
    second = heads[1].submit(ROOT, *words, "--resume")
    fresh = {}

    def begun() -> bool:
        """Whether a trial that was not finished trains, and has an epoch and its checkpoint behind it."""
        for name, rows in events(out).items():
            tries = len(rows) > len(before.get(name, [])) and names(rows)[-1] in ("begins", "goes on")
            if tries and checkpoints(out / "trials" / name / "coarse" / "checkpoints"):  # one an epoch
                fresh[name] = rows[-1]
        return bool(fresh)

    wait_for(begun, second)
    name, row = next(iter(fresh.items()))
    os.kill(int(str(row["pid"])), signal.SIGKILL)
    said, _ = second.communicate(timeout=WAIT_S)
    assert second.returncode == 0, said
    assert "4 of 4 trials ended" in said

    after = events(out)
    assert len(after) == 4
    for finished in done:  # trained once: whatever came later found it finished
        assert names(after[finished])[: len(before[finished])] == names(before[finished])
        assert set(names(after[finished])[len(before[finished]) :]) <= {"was finished"}
    assert names(after[name])[-2:] == ["goes on", "is finished"]
    for rows in after.values():
        assert names(rows).count("is finished") == 1
    document = json.loads((out / "search.json").read_text())
    assert document["finished"]
    assert [point["trials"][0]["epochs"] for point in document["points"]] == [20] * 4
    assert {point["succeeded"] for point in document["points"]} == {True}
    assert document["best"]["JA"] == max(point["JA"] for point in document["points"])
    assert load(out / "best.yaml").loss.top_k == document["best"]["point"]["loss.top_k"]
    assert "+g" not in document["code_version"]  # what trained is what was sent along, not an installed checkout
