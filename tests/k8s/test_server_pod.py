"""The programs that the server's pods run, run for real as the manifests call them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import LOCAL, Authority
from containers import Machine
from exported import Exported
from manifests import manifests, named
from server_pods import ServerPod, start_server

from mbdcnn.data.sample import draw
from serve._metrics import fetch
from serve.client import Client, ServerError, TlsFiles
from serve.export import export_networks
from serve.probe import request

pytestmark = pytest.mark.server


def _template(kind: str, name: str, way: str = "cpu") -> dict:
    spec = named(manifests(way), kind, name)["spec"]
    return (spec["jobTemplate"]["spec"] if kind == "CronJob" else spec)["template"]["spec"]


def _run(container: dict, machine: Machine) -> subprocess.CompletedProcess[str]:
    words = machine.command(container, manifests("cpu"))
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def test_the_init_container_lets_a_whole_repository_pass_and_no_other(models: Callable[[str], Path]) -> None:
    volume = models("verified")
    (verify,) = _template("Deployment", "server")["initContainers"]
    machine = Machine(places={"/models/": f"{volume}/"})
    passed = _run(verify, machine)
    assert (passed.returncode, passed.stderr) == (0, "")
    network = volume / "repository" / "mask_cn" / "1" / "model.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\0\0")
    stopped = _run(verify, machine)
    assert stopped.returncode == 2
    assert f"{network} is not as it was exported" in stopped.stderr
    shutil.rmtree(volume / "repository")
    assert "is missing or damaged" in _run(verify, machine).stderr


def test_the_released_networks_pass_once_they_are_placed(tmp_path: Path) -> None:
    machine = Machine(places={"/models/": f"{tmp_path}/"})
    for code in (0, 2):  # they are placed once
        placed = _run(_template("CronJob", "place-released-model")["containers"][0], machine)
        assert placed.returncode == code, placed.stderr
    (verify,) = _template("Deployment", "server")["initContainers"]
    assert _run(verify, machine).returncode == 0


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_the_probes_ask_for_a_real_answer(pod: ServerPod, probe: str) -> None:
    before = _answers(pod)
    assert pod.asked(probe) == 0
    assert _answers(pod) > before
    nobody = Machine(places={":8000": ":1"})
    absent = subprocess.run(nobody.probe(pod.container, probe), capture_output=True, text=True, timeout=120)
    assert (absent.returncode, "No server answers" in absent.stderr) == (1, True)


def _metrics(pod: ServerPod) -> str:
    return fetch(f"http://127.0.0.1:{pod.ports.metrics}").decode()


def _value(pod: ServerPod, metric: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in _metrics(pod).splitlines() if line.startswith(metric))


def _answers(pod: ServerPod) -> float:
    return _value(pod, 'nv_inference_request_success{model="mbdcnn",')


class Askers:
    """Clients that ask one image after the other, with what the client itself does about servers that come and go."""

    def __init__(self, url: str, image: bytes, n: int = 2) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url, image)) for _ in range(n)]

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url: str, image: bytes) -> None:
        with Client(url) as client:
            while not self._stop.is_set():
                try:
                    client.predict(image)
                    self.answered += 1
                except Exception as error:
                    self.failures.append(str(error))
                self._stop.wait(0.1)  # leaves the servers that start beside it some of the cores


@pytest.mark.slow
def test_an_upgrade_a_rollback_and_the_end_of_a_pod_cost_no_request(
    models: Callable[[str], Path],
    exported: Exported,
    encode: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)  # no proxy leads to a list of addresses
    volume = models("upgraded")
    repository = volume / "repository"
    image = encode(draw("test", 0, size=80)[0])
    with (
        start_server("cpu", volume, tmp_path / "a") as a,
        start_server("cpu", volume, tmp_path / "b") as b,
        # what the name server-pods stands for: the addresses of both
        Askers(f"ipv4:127.0.0.1:{a.ports.grpc},127.0.0.1:{b.ports.grpc}", image) as askers,
    ):
        (fingerprint := tmp_path / "fingerprint.json").write_text('{"name": "none"}')
        export_networks(
            exported.networks, exported.spec, repository, {"run": "untrained"}, instances=1, fingerprint=fingerprint
        )
        for pod in (a, b):
            pod.running.wait_for(lambda pod=pod: _value(pod, 'mbdcnn_upgrades_total{result="done"}') == 1)
            pod.running.wait_for(lambda pod=pod: 'model="mbdcnn",version="2"' in _metrics(pod))
        back = _run(
            _template("CronJob", "roll-back-model")["containers"][0], Machine(places={"/models/": f"{volume}/"})
        )
        assert back.returncode == 0, back.stderr
        for pod in (a, b):
            pod.running.wait_for(lambda pod=pod: _value(pod, 'mbdcnn_upgrades_total{result="done"}') == 2)
        shares = [_answers(pod) for pod in (a, b)]
        assert min(shares) > 0, "the clients do not share their requests out"
        answered = askers.answered
        code, seconds = a.running.terminate()
        assert code == 0
        assert seconds < _template("Deployment", "server")["terminationGracePeriodSeconds"]
        b.running.wait_for(lambda: askers.answered > answered + 20)
        assert _value(b, "mbdcnn_server_restarts_total") == 0
    assert askers.failures == []


@pytest.mark.slow
def test_with_tls_only_known_clients_are_answered_and_metrics_stay_in_reach(
    models: Callable[[str], Path], encode: Callable[..., bytes], tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority", "hospital")
    own, doctor = authority.issue("server", LOCAL), authority.issue("doctor")
    secret = tmp_path / "secret"
    secret.mkdir()
    for name, file in {"tls.crt": own.cert, "tls.key": own.key, "ca.crt": authority.ca}.items():
        shutil.copy(file, secret / name)
    places = {"/etc/mbdcnn/tls/": f"{secret}/"}
    with start_server("tls", models("tls"), tmp_path / "tmp", host="0.0.0.0", places=places) as pod:
        url, image = f"127.0.0.1:{pod.ports.grpc}", encode(draw("test", 0, size=80)[0])
        with Client(url, tls=TlsFiles(authority.ca, doctor.cert, doctor.key)) as client:
            assert client.predict(image).label
        with Client(url, 10, tls=TlsFiles(authority.ca)) as stranger, pytest.raises(ServerError):
            stranger.predict(image)
        # 127.0.0.2 is this machine too, but not the address to which HTTP keeps
        assert request(f"http://127.0.0.2:{pod.ports.metrics}", "/metrics", 60)[0] == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", pod.ports.http), 10).close()


_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def _can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not _can_unshare(), reason="this machine lets no user have a mount namespace")
def test_the_server_writes_nothing_but_its_volumes(models: Callable[[str], Path], tmp_path: Path) -> None:
    """In a mount namespace in which all but the volumes of the pod is read-only."""
    volume, container = models("read-only"), _template("Deployment", "server")["containers"][0]
    own = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert sorted(own) == ["/dev/shm", "/tmp", "/var/cache/mbdcnn"]
    machine = Machine(
        {"PROFILE": "embedded"},
        {"/models/": f"{volume}/", "=8000": "=0", "=8001": "=0", "=8002": "=0", "=0.0.0.0": "=127.0.0.1"},
    )
    # this checkout and the repository may lie in /tmp, so what lies there is seen through what is written there
    script = f"""
        set -e
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work
        mount -t overlay overlay -o lowerdir=/tmp,upperdir=/mnt/upper,workdir=/mnt/work,userxattr /tmp
        mount -t tmpfs tmpfs /dev/shm
        mount -o remount,bind,ro /
        ! touch /x 2>/dev/null
        touch {tmp_path}/x
        exec "$@"
    """
    words = [*_UNSHARE, "sh", "-c", script, "sh", *machine.command(container, manifests("cpu"))]
    environment = {**os.environ, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("XDG_CACHE_HOME", None)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if '"event": "ready"' in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, "".join(said)
    assert any('"event": "ready"' in line for line in said), "".join(said)


def test_a_pod_that_is_told_to_stop_has_the_time_that_it_needs() -> None:
    from serve._supervisor import _REST

    for way in ("k8s", "cpu", "tls"):
        settings = named(manifests(way), "ConfigMap", "settings")["data"]
        spec = _template("Deployment", "server", way)
        container = spec["containers"][0]
        waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] >= waits + float(settings["DRAIN_SECONDS"]) + _REST + 5
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] > float(settings["START_TIMEOUT_SECONDS"])
        assert named(manifests(way), "Deployment", "server")["spec"]["progressDeadlineSeconds"] > float(
            settings["START_TIMEOUT_SECONDS"]
        )
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            command = container[kind]["exec"]["command"]
            assert container[kind]["timeoutSeconds"] > float(command[command.index("--deadline") + 1])
