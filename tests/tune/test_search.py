"""Whole searches on a Ray of their own: interrupted, evolving, with several processes, and with trials that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ray_cluster import environment
from tuning import TINY

from mbdcnn import runs
from mbdcnn.config import load, override
from mbdcnn.data.manifest import Manifest
from tune._trial import epochs_in
from tune._work import STAGE, Work

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

SCRIPT = Path(__file__).parents[2] / "tune" / "search.py"
WAIT_S = 300
UNLIKE = ["seed=1", "coarse.epochs=8", "coarse.patience=8"]  # trials that score differently before they end


def command(work: Work, *words: str) -> list[str]:
    """A search that trains what `work` says, when its space is the paper's."""
    options = ["--data", str(work.data.root), "--out", str(work.out), "--preset", "smoke", "--prepared", "none"]
    return [sys.executable, str(SCRIPT), *options, *TINY, *words]


def search(work: Work, folder: Path, *words: str) -> tuple[dict, str]:  # type: ignore[type-arg]
    """Run it to its end; what it answers, and what it says meanwhile."""
    done = subprocess.run(
        command(work, *words, "--json"), cwd=folder, env=environment(), capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout), done.stderr


def trials(document: dict) -> list[dict]:  # type: ignore[type-arg]
    return [trial for point in document["points"] for trial in point["trials"]]


def score_in(run: Path) -> float:
    """JA of the best epoch that a run folder tells of."""
    return max(row["JA"] for row in epochs_in(run))


def test_asha_ends_trials_early_a_failure_sinks_nothing_and_ctrl_c_leaves_results(work: Work, tmp_path: Path) -> None:
    algorithm = ["--algorithm", "asha", "--points", "6", "--reduction", "2", "--seeds", "2", "--finalists", "1"]
    algorithm += UNLIKE
    work = replace(work, config=override(work.config, UNLIKE))
    drawn = work.space.draw(6, seed=1)
    work.run_folder(drawn[1], 1).parent.mkdir(parents=True)
    work.run_folder(drawn[1], 1).write_text("in the way")
    process = subprocess.Popen(
        command(work, *algorithm), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + WAIT_S
    while not list(work.out.glob("trials/*/coarse/metrics.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S)
    said = err.decode()
    assert process.returncode == 128 + signal.SIGINT, said
    assert out == b""
    assert said.splitlines()[-1] == f"mbdcnn: stopped; results so far in {work.out}/report.html, and --resume goes on."
    assert "Traceback" not in said
    early = json.loads((work.out / "search.json").read_text())
    assert not early["finished"]
    assert load(work.out / "best.yaml").loss.top_k == early["best"]["point"]["loss.top_k"]
    assert "Not finished." in (work.out / "report.html").read_text()

    document, said = search(work, tmp_path, *algorithm, "--resume")
    assert "asha: 5 of 6 trials ended" in said
    assert document["finished"]
    states = [trial["state"] for trial in trials(document)]
    assert states.count("failed") == 1
    assert states.count("stopped early") >= 1
    failed = next(trial for trial in trials(document) if trial["state"] == "failed")
    assert failed["point"] == drawn[1]
    assert failed["reason"].startswith(str(work.run_folder(drawn[1], 1)))
    assert "File exists" in failed["reason"]
    assert document["epochs_trained"] < document["epochs_of_all_to_their_end"]
    assert document["best"]["seeds"] == [1, 2]
    over_lambda = {trial["point"]["loss.lambda_rank"] for trial in trials(document)}
    assert over_lambda == {0.01, 0.05, 0.1, 0.5}
    for name in ("best.yaml", "trials.csv", "fig5.png", "fig6.png", "report.html"):
        assert (work.out / name).is_file()


def test_a_population_changes_its_settings_as_it_trains(work: Work, sample: Manifest, tmp_path: Path) -> None:
    options = ["--space", "wide", "--algorithm", "pbt", "--points", "4", "--finalists", "1", "coarse.epochs=4"]
    document, _ = search(work, tmp_path, *options)
    assert len(document["population"]) == 4
    assert {trial["state"] for trial in document["population"]} == {"finished"}
    assert {trial["epochs"] for trial in document["population"]} == {4}
    folders = list((work.out / "population").iterdir())
    assert len(folders) == 4  # of each trial its last run folder
    scored = {(load(run / STAGE / runs.CONFIG).loss.lambda_rank, score_in(run)) for run in folders}
    assert {(trial["point"]["loss.lambda_rank"], trial["JA"]) for trial in document["population"]} == scored
    (point,) = document["points"]  # the best of the population, trained anew and constant
    assert point["succeeded"]
    assert document["best"]["point"] == point["point"]
    assert point["point"] in [trial["point"] for trial in document["population"]]
    changes = [path for path in (work.out / "ray").rglob("pbt_policy_*.txt") if path.stat().st_size]
    assert changes


def test_trials_of_two_processes(work: Work, tmp_path: Path) -> None:
    options = ["--algorithm", "random", "--space", "wide", "--points", "1", "--processes", "2", "--cpus", "1"]
    document, _ = search(work, tmp_path, *options)
    (trial,) = trials(document)
    assert (trial["state"], trial["epochs"]) == ("finished", 3)
    metrics = json.loads((work.out / trial["run"] / "coarse" / "metrics.json").read_text())
    assert metrics["environment"]["processes"] == 2


def test_a_trial_that_the_cluster_has_no_room_for(work: Work, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    done = subprocess.run(
        command(work, "--cpus", str(cores + 1)), cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"A trial wants {cores + 1} CPUs on one machine, and the cluster's 1 machine has {cores} CPUs" in done.stderr
