"""The supervisor with another profile, on a server that is laid out as in NVIDIA's image.

It is the one that pip installs, which lacks the backends that the profile needs; so the repository's profile says the
same as `embedded`, but for a mark.
"""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve._live import stage
from serve._profiles import MODELS, PROFILES
from serve._triton import Installation
from serve.client import MODEL, Client
from serve.server import TritonServer

MARK = 7  # the largest batch
PUBLIC = (MODEL, "mbdcnn_fused", "mbdcnn_networks")


def _parse(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as /opt/tritonserver."""
    wheel = Installation.find("embedded")
    root = tmp_path / "tritonserver"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tritonserver").symlink_to(wheel.binary)
    wheel.link_backends(root / "backends")
    monkeypatch.setenv("MBDCNN_TRITONSERVER", str(root))
    libraries = [str(sysconfig.get_config_var("LIBDIR")), str(wheel.root.parent.parent / "nvidia_pytriton.libs")]
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(libraries))  # in the image the system's own
    return root


@pytest.mark.server
@pytest.mark.slow
def test_a_server_of_nvidias_serves_the_profile_that_is_asked_for(exported, encode, image, tmp_path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(exported.repository, repository)
    for model in MODELS:
        config = _parse(repository / model / "config.pbtxt")
        config.max_batch_size = MARK
        (repository / model / "configs" / "production.pbtxt").write_text(text_format.MessageToString(config))
    for watch in (None, 60.0):
        with TritonServer(repository, profile="production", watch=watch) as server:
            with Client(server.grpc_url) as client:
                assert client.predict(encode(draw("test", 0, size=80)[0])).label
            with grpc.InferenceServerClient(server.grpc_url) as triton:
                for model in MODELS:
                    name = model if watch is None or model in PUBLIC else f"{model}_v1"
                    assert triton.get_model_config(name).config.max_batch_size == MARK


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("versioned", [False, True])
def test_a_copy_holds_the_profile_and_names_that_fit(exported, tmp_path, profile: str, versioned: bool) -> None:
    staged = stage(exported.repository, tmp_path / "staged", versioned, profile)
    place = "config.pbtxt" if profile == "embedded" else f"configs/{profile}.pbtxt"
    for folder in (staged.repository, staged.models):
        for copy in folder.iterdir():
            model = copy.name.removesuffix("_v1")
            wanted, found = _parse(exported.repository / model / place), _parse(copy / "config.pbtxt")
            assert found.name == copy.name
            assert [s.model_name.removesuffix("_v1") for s in found.ensemble_scheduling.step] == [
                s.model_name for s in wanted.ensemble_scheduling.step
            ]
            for config in (wanted, found):
                config.ClearField("name")
                config.ClearField("ensemble_scheduling")
            assert found == wanted
    networks = {name for name in MODELS if _parse(staged.repository / name / "config.pbtxt").backend == "onnxruntime"}
    assert bool(networks) == (profile != "embedded")
    assert (MODEL in staged.public, staged.version) == (True, 1)


def test_what_a_profile_lacks_is_named(exported, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBDCNN_TRITONSERVER", str(tmp_path / "absent"))
    with pytest.raises(
        UserError, match=r"no tritonserver in .*absent, which the profile production needs; .*--profile"
    ):
        TritonServer(exported.repository, profile="production").start()
    repository = tmp_path / "repository"
    shutil.copytree(exported.repository, repository)
    shutil.rmtree(repository / "cam" / "configs")
    with pytest.raises(UserError, match="lacks the profile production; export the repository anew"):
        stage(repository, tmp_path / "staged", True, "production")
    assert not (tmp_path / "staged").exists()
