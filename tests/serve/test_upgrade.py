from __future__ import annotations

import json
import resource
import shutil
import threading
import time
from pathlib import Path

import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve._live import ChangingError, Watch, signature, stage
from serve.client import MODEL, Client
from serve.server import TritonServer
from serve.verify import MANIFEST, files_in, read_manifest, sha256


def _release(
    exported,
    repository: Path,
    version: int,
    classes: tuple[str, ...] = CLASSES,
    *,
    broken: bool = False,
    damaged: bool = False,
) -> None:
    """Put another version of the exported repository in its place, in one rename, as an export does.

    A broken one was exported with a file that is no network; of a damaged one a byte has changed since.
    """
    new, old = repository.with_name("new"), repository.with_name("old")
    shutil.copytree(exported.repository, new)
    for model in filter(Path.is_dir, list(new.iterdir())):
        (model / "1").rename(model / str(version))
        config = (model / "config.pbtxt").read_text()
        (model / "config.pbtxt").write_text(config.replace("model_version: 1\n", f"model_version: {version}\n"))
    for labels in new.glob("*/labels.txt"):
        labels.write_text("\n".join(classes) + "\n")
    network = new / "mask_cn" / str(version) / "model.onnx"
    if broken:
        network.write_bytes(b"not a network")
    manifest = read_manifest(new)
    files = {str(path.relative_to(new)): sha256(path) for path in files_in(new) if path != new / MANIFEST}
    (new / MANIFEST).write_text(json.dumps({**manifest, "files": files}))
    if damaged:
        network.write_bytes(network.read_bytes()[:-1] + b"?")
    if repository.exists():
        repository.rename(old)
    new.rename(repository)
    shutil.rmtree(old, ignore_errors=True)


def _wait(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.1)


class Load:
    """A plain client that asks without a pause, and counts which version answers."""

    def __init__(self, url: str, image: bytes) -> None:
        import numpy as np
        from tritonclient import grpc

        self.versions: dict[str, int] = {}
        self.errors: list[str] = []
        self._stop = threading.Event()
        client = grpc.InferenceServerClient(url)
        tensor = grpc.InferInput("IMAGE", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image]], dtype=np.object_))

        def ask() -> None:
            while not self._stop.is_set():
                try:
                    version = client.infer(MODEL, [tensor]).get_response().model_version
                    self.versions[version] = self.versions.get(version, 0) + 1
                except Exception as error:
                    self.errors.append(str(error))

        self._thread = threading.Thread(target=ask)
        self._thread.start()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.server
@pytest.mark.slow
def test_new_versions_are_taken_and_broken_ones_refused_without_a_failed_request(exported, encode, tmp_path, caplog):
    repository = tmp_path / "repository"
    _release(exported, repository, 1)
    image = encode(draw("test", 0, size=80)[0])
    with (
        TritonServer(repository, watch=0.3, probe_interval=1.0) as server,
        Load(server.grpc_url, image) as load,
        Client(server.grpc_url) as client,
    ):
        first = client.predict(image)
        _release(exported, repository, 2, classes=("a", "b", "c"))
        _wait(lambda: server.upgrades == 1)
        second = client.predict(image)  # the same connection
        assert (first.classes, second.classes) == (CLASSES, ("a", "b", "c"))
        assert list(second.probabilities.values()) == pytest.approx(list(first.probabilities.values()))
        _release(exported, repository, 3, broken=True)
        _wait(lambda: "is not taken, the old one serves on" in caplog.text)
        _wait(lambda: load.versions.get("2", 0) > 3)
        _release(exported, repository, 3, damaged=True)
        _wait(lambda: "mask_cn/3/model.onnx is not as it was exported" in caplog.text)
        _release(exported, repository, 4)
        _wait(lambda: server.upgrades == 2)
        _wait(lambda: load.versions.get("4", 0) > 3)
        twos = load.versions["2"]
        _release(exported, repository, 2)  # as a rollback does
        _wait(lambda: server.upgrades == 3)
        _wait(lambda: load.versions["2"] > twos + 3)
        time.sleep(3.0)  # the processes that were remembered are those that live
        assert server.restarts == 0
    assert load.errors == []
    assert set(load.versions) == {"1", "2", "4"}


def test_a_copy_is_of_one_version_and_pins_it(exported, tmp_path):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    repository = tmp_path / "repository"
    shutil.copytree(exported.repository, repository)
    for model in filter(Path.is_dir, list(repository.iterdir())):
        shutil.copytree(model / "1", model / "7")
    staged = stage(repository, tmp_path / "staged", versioned=True)
    assert (staged.version, staged.public[0]) == (7, MODEL)
    assert "coarse_sn_v7" in staged.steps
    config = (staged.models / MODEL / "config.pbtxt").read_text()
    parsed = text_format.Parse(config, model_config_pb2.ModelConfig())
    assert {step.model_name for step in parsed.ensemble_scheduling.step} == set(staged.steps)
    assert {step.model_version for step in parsed.ensemble_scheduling.step} == {7}
    assert [p.name for p in (staged.models / "coarse_sn_v7").iterdir() if p.name.isdigit()] == ["7"]
    assert (staged.models / "coarse_sn_v7" / "7").resolve().parent == staged.repository / "coarse_sn"
    plain = stage(repository, tmp_path / "plain", versioned=False)
    assert "coarse_sn" in plain.steps


def test_models_of_several_versions_are_refused(exported, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(exported.repository, repository)
    (repository / "cam" / "1").rename(repository / "cam" / "2")
    with pytest.raises(UserError, match="not of one version"):
        stage(repository, tmp_path / "staged", versioned=True)
    assert not (tmp_path / "staged").exists()
    shutil.rmtree(repository)
    with pytest.raises(ChangingError):  # between the two renames of an export
        stage(repository, tmp_path / "staged", versioned=True)


def test_a_full_disk_is_named_and_leaves_nothing(exported, tmp_path):
    largest = max(path.stat().st_size for path in exported.repository.rglob("*.onnx"))
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be copied to .*staged \(.*File too large.*; mend it or TMPDIR"):
            stage(exported.repository, tmp_path / "staged", versioned=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "staged").exists()


def test_a_change_is_seen_when_it_has_come_to_rest(tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "a").write_text("1")
    watch = Watch(repository, 0.0, signature(repository))
    assert not watch.changed()
    (repository / "a").write_text(json.dumps([1, 2]))
    assert not watch.changed()  # it may still be written to
    assert watch.changed()
    watch.done()
    assert not watch.changed()
