"""The training job's command line, as two nodes of which each is lost once."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from containers import Machine, Running
from engine_runs import TINY, weights
from manifests import Document, manifests, named

from mbdcnn.config import STAGES
from mbdcnn.data.sample import write_sample
from train.checkpoints import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
TWO = manifests("train on cpu")


def _job() -> Document:
    return named(TWO, "Job", "train")["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The claims, with a small sample of data."""
    folder = tmp_path_factory.mktemp("volumes")
    for name in ("data", "runs", "models"):
        (folder / name).mkdir()
    write_sample(folder / "data" / "sample", {"training": 24, "validation": 9}, size=160)
    return folder


def _machine(volumes: Path, run: str, port: int = 29500) -> Machine:
    places = {f"/{name}/": f"{volumes}/{name}/" for name in ("data", "runs", "models")}
    return Machine({"RUN": f"/runs/{run}"}, {**places, "train-0.train:29500": f"127.0.0.1:{port}"})


def _listens(port: int) -> bool:
    """Whether a program of this machine listens there; asking it would be a connection that it does not expect."""
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path("/proc/net", table).read_text().splitlines()[1:]]
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


class Job:
    """The two pods of a job that trains one run, on the same meeting place.

    Args:
        volumes: the claims.
        run: its name.
    """

    def __init__(self, volumes: Path, run: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        words = _machine(volumes, run, self._port).command(_job()["containers"][0], TWO)
        short = [word.replace("epochs=2", "epochs=1") for word in TINY]
        self._command = [*words, *short, "engine.checkpoint_minutes=1e-9"]  # a checkpoint a step
        self._folder = folder
        self.run = volumes / "runs" / run
        self.pods: list[Running] = []
        self.start_both()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.kill()

    def start(self, index: int) -> Running:
        """The pod of an index, or its successor."""
        return Running(self._command, self._folder / f"{self.run.name}-{index}.log")

    def start_both(self) -> None:
        """Both, the one whose name is the meeting place's first: here either could hold it."""
        self.pods = [self.start(0)]
        self.pods[0].wait_for(lambda: _listens(self._port))
        self.pods.append(self.start(1))

    def reaches(self, stage: str) -> None:
        """Wait for a checkpoint of a stage."""
        folder = self.run / stage / "checkpoints"
        self.pods[0].wait_for(lambda: bool(checkpoints(folder)) or (folder.parent / "metrics.json").is_file())

    def ends(self) -> None:
        """Wait until both have ended well."""
        for pod in self.pods:
            assert pod.process.wait(300) == 0, pod.log.read_text()


def test_data_that_cannot_be_used_end_the_job_at_once(volumes: Path, tmp_path: Path) -> None:
    """Exit code 2, which the job's policy takes for an end."""
    (check,) = _job()["initContainers"]
    rule = named(TWO, "Job", "train")["spec"]["podFailurePolicy"]["rules"][0]
    assert rule["onExitCodes"] == {"containerName": check["name"], "operator": "In", "values": [2]}
    machine = _machine(volumes, "x")
    words = [
        word.replace("/tmp/manifest.json", str(tmp_path / "manifest.json")) for word in machine.command(check, TWO)
    ]
    assert subprocess.run(words, capture_output=True, timeout=120).returncode == 0
    empty = [word.replace(f"{volumes}/data/sample", str(tmp_path)) for word in words]
    assert subprocess.run(empty, capture_output=True, timeout=120).returncode == 2


def test_nodes_that_are_lost_come_back_and_change_nothing(volumes: Path, tmp_path: Path) -> None:
    with Job(volumes, "whole", tmp_path) as job:
        job.ends()
    with Job(volumes, "lost", tmp_path) as job:
        job.reaches("coarse")
        job.pods[1].kill()
        job.pods[1] = job.start(1)  # the other one waits for it
        job.reaches("mask")
        job.pods[0].kill()  # where they meet: the other one ends as well, and the job starts both anew
        assert job.pods[1].process.wait(300) != 0
        job.start_both()
        job.ends()
    whole, lost = (volumes / "runs" / name for name in ("whole", "lost"))
    for stage in STAGES:
        assert weights(lost, stage) == weights(whole, stage), stage
    _export(volumes)


def _export(volumes: Path) -> None:
    """Run what makes a repository of the run, and what checks it, in their order."""
    spec = named(TWO, "CronJob", "export-model")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        words = _machine(volumes, "lost").command(container, TWO)
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert "version 1" in done.stdout
