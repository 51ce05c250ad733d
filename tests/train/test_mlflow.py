"""A stage as a run of a real MLflow store."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from mbdcnn import config as configuration
from mbdcnn.config import flatten, override
from mbdcnn.presets import preset
from train._mlflow import Tracked
from train.monitor import Monitor
from train.processes import Process
from train.progress import Progress

CONFIG = override(preset("smoke"), ["coarse.epochs=1"])
# what MLflow makes SQLAlchemy, which it stores with, complain of
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::sqlalchemy.exc.SADeprecationWarning"),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lesions")
    client = MlflowClient(uri)
    client.create_experiment("lesions")
    return client


def only_run(store: MlflowClient) -> Run:
    experiment = store.get_experiment_by_name("lesions")
    assert experiment is not None
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def watch_an_epoch(folder: Path) -> None:
    folder.mkdir(parents=True)
    configuration.save(CONFIG, folder / "config.yaml")
    monitor = Monitor("coarse", folder, CONFIG, 1, Process(0, 1, torch.device("cpu")), Progress())
    monitor.epoch_begins(0, 0)
    monitor.step_done({"loss": torch.tensor(0.25)}, 16)
    monitor.epoch_ends(
        Progress(1, 0, 1, {"JA": 0.75}, 2.0), {"loss": 0.25}, {"JA": 0.75}, [{"learning_rate": 0.1, "loss": 0.25}]
    )
    monitor.close()


def test_a_stage_that_goes_on_is_the_same_run(store: MlflowClient, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "coarse"
    folder.mkdir(parents=True)
    first = Tracked(folder, CONFIG)
    first.epoch(1, {"JA": 0.5, "loss": 0.25})
    first.end(over=False)
    assert only_run(store).info.status == "KILLED"
    again = Tracked(folder, CONFIG)
    assert only_run(store).info.status == "RUNNING"
    again.epoch(2, {"JA": 0.75, "loss": 0.125})
    again.end(over=True)
    run = only_run(store)
    assert (run.info.run_name, run.info.status) == ("mine/coarse", "FINISHED")
    assert run.data.params == {name: str(value) for name, value in flatten(CONFIG).items()}
    assert [(m.step, m.value) for m in store.get_metric_history(run.info.run_id, "JA")] == [(1, 0.5), (2, 0.75)]


def test_a_run_of_another_store_is_begun_anew(store: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "mlflow-run-id.txt").write_text("0123456789abcdef0123456789abcdef\n")
    Tracked(tmp_path, CONFIG).end(over=True)
    assert (tmp_path / "mlflow-run-id.txt").read_text().strip() == only_run(store).info.run_id


def test_the_monitor_sends_epochs(store: MlflowClient, tmp_path: Path) -> None:
    watch_an_epoch(tmp_path / "mine" / "coarse")
    deadline = time.monotonic() + 120  # on a busy machine it goes on to write after close has waited
    while only_run(store).info.status == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.2)
    run = only_run(store)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["JA"] == 0.75
    assert run.data.metrics["loss"] == 0.25


def test_a_server_that_does_not_answer_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    watch_an_epoch(tmp_path / "coarse")
    assert json.loads((tmp_path / "coarse" / "log.jsonl").read_text().splitlines()[-1])["JA"] == 0.75
    deadline, said = time.monotonic() + 120, ""
    while "MLflow's run is not written any more" not in said and time.monotonic() < deadline:
        time.sleep(0.1)
        said += capsys.readouterr().err
    assert "; the training goes on" in said
    assert "Traceback" not in said


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code = "import sys; from train._mlflow import is_wanted; sys.path[:] = []; is_wanted()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    sentence = "MLFLOW_TRACKING_URI is set, but mlflow is not installed; pip install 'mbdcnn[mlflow]', or unset it."
    assert done.stderr.splitlines()[-1].endswith(f"UserError: {sentence}")
