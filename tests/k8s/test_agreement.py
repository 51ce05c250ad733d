"""What the manifests say of the server and the trainer is what these really have."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from containers import Machine
from manifests import ROOT, WAYS, manifests, named, pods
from policies import commands_elsewhere, variables, words

from mbdcnn.cli import cli
from mbdcnn.preprocessing import MAX_ENCODED_BYTES, MAX_PIXELS
from mbdcnn.presets import preset
from serve._ports import Ports
from serve._profiles import ENGINE_CACHE, PROFILES

SERVING = ("k8s", "cpu", "tls")


def _server(way: str) -> dict:
    return named(manifests(way), "Deployment", "server")["spec"]["template"]["spec"]["containers"][0]


def _settings(way: str) -> dict[str, str]:
    return named(manifests(way), "ConfigMap", "settings")["data"]


@pytest.mark.parametrize("way", SERVING)
def test_ports_are_those_that_the_server_opens(way: str) -> None:
    container = _server(way)
    options = dict(word.removeprefix("--").split("=") for word in container["args"] if "=" in word)
    declared = {port["name"]: port["containerPort"] for port in container["ports"]}
    opened = {name: int(options[f"{name}-port"]) for name in ("http", "grpc", "metrics")}
    assert Ports(**opened) == Ports()
    assert opened.items() >= declared.items()
    assert set(opened) - set(declared) == ({"http"} if "tls-cert" in options else set())
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert f"http://127.0.0.1:{opened['http']}" in container[kind]["exec"]["command"]


@pytest.mark.parametrize("way", WAYS)
def test_every_option_of_every_command_is_known(way: str) -> None:
    documents = manifests(way)
    lines = [words(container) for pod in pods(documents) for container in pod.containers]
    lines += [line for _, line in commands_elsewhere(documents)]
    seen = 0
    for line in lines:
        if "mbdcnn" not in line:
            continue
        seen += 1
        words_of_command = Machine().local(line[line.index("mbdcnn") :], documents)[3:]
        command, rest = cli, words_of_command
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(command.name, list(rest)).close()
    assert seen or way in ("tune", "monitoring")


def test_an_option_that_is_not_there_is_found() -> None:
    from click import NoSuchOption

    with pytest.raises(NoSuchOption):
        cli.commands["serve"].make_context("serve", ["--repository=x", "--drains=3"])


@pytest.mark.parametrize("way", SERVING)
def test_settings_are_read_by_somebody_and_are_what_the_programs_take(way: str) -> None:
    settings = _settings(way)
    read = {name for each in WAYS for line in _lines(each) for name in variables(line)}
    patterns = [(room, kind) for room in ("mbdcnn", "serve") for kind in ("*.py", "*.pbtxt")]
    sources = "".join(path.read_text() for room, kind in patterns for path in (ROOT / room).rglob(kind))
    read |= set(re.findall(r"\b(?:MBDCNN|NVIDIA)_[A-Z0-9_]+\b", sources))
    assert set(settings) <= read
    assert settings["PROFILE"] in PROFILES
    assert int(settings["MBDCNN_MAX_ENCODED_MB"]) == MAX_ENCODED_BYTES // 2**20
    assert int(settings["MBDCNN_MAX_MEGAPIXELS"]) == MAX_PIXELS // 10**6
    assert preset(settings["PRESET"]).preset == settings["PRESET"]


def _lines(way: str) -> list[list[str]]:
    documents = manifests(way)
    inside = [words(container) for pod in pods(documents) for container in pod.containers]
    return inside + [line for _, line in commands_elsewhere(documents)]


@pytest.mark.parametrize("way", WAYS)
def test_paths_lie_in_volumes(way: str) -> None:
    documents = manifests(way)
    for pod in pods(documents):
        for container in pod.containers:
            mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            line = words(container)  # none where a custom resource's controller adds it
            for word in Machine().local(line, documents) if line else []:
                path = word.rpartition("=")[2]
                if path.startswith("/") and not path.startswith(str(Path("/usr"))) and "python" not in path:
                    assert any(Path(path).is_relative_to(mount) for mount in mounts), f"{pod.name}: {path}"


@pytest.mark.parametrize("way", SERVING)
def test_what_the_server_writes_is_a_volume(way: str) -> None:
    spec = named(manifests(way), "Deployment", "server")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    for path in ("/tmp", "/dev/shm", ENGINE_CACHE):
        assert "emptyDir" in volumes[mounts[path]["name"]], path
        assert "readOnly" not in mounts[path]
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
    # an export renames the repository, which a mount of the folder itself would not see
    repository = Path(_settings(way)["REPOSITORY"])
    assert mounts[str(repository.parent)]["readOnly"] is True


@pytest.mark.parametrize(("way", "profile"), [("k8s", "production"), ("tls", "production"), ("cpu", "embedded")])
def test_graphics_cards_are_for_the_profiles_that_use_them(way: str, profile: str) -> None:
    container, kind = _server(way), {"production": "gpu", "embedded": "cpu"}[profile]
    assert _settings(way)["PROFILE"] == profile
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (kind == "gpu")
    assert container["image"].partition("@")[0].endswith(f"-{kind}")


def test_rays_version_is_that_of_the_image() -> None:
    job = named(manifests("tune"), "RayJob", "tune")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


def test_nobody_runs_code_on_ray_without_its_token() -> None:
    assert named(manifests("tune"), "RayJob", "tune")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_search_takes_the_options_of_its_job() -> None:
    import subprocess
    import sys

    job = named(manifests("tune"), "RayJob", "tune")
    program, *options = job["spec"]["entrypoint"].split()
    assert (program, options[:2]) == ("python", ["-m", "tune.search"])
    help_text = subprocess.run(
        [sys.executable, "-m", "tune.search", "--help"], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    for option in options[2:]:
        if option.startswith("--"):
            assert option in help_text
    assert options[options.index("--algorithm") + 1] in help_text
