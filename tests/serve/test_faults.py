from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve._metrics import fetch
from serve._ports import Ports
from serve._process import stubs
from serve._shared_memory import SharedMemory, remove_orphans
from serve.client import Client
from serve.server import TritonServer

pytestmark = pytest.mark.server


def _wait(condition, seconds: float) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "too slow"
        time.sleep(0.05)
    return time.monotonic() - start


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _shared_memory(pid: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"mbdcnn_{pid}_*"))


@pytest.fixture
def command(exported, tmp_path, request):
    """`serve` in a process of its own, as the command line runs it; a parameter is what starts it."""
    starter = getattr(request, "param", ())
    code = f"from serve.server import serve; serve({str(exported.repository)!r}, 0, 0, 0)"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*starter, sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stderr.close()


def _ready(process) -> str:
    for line in process.stderr:
        if line.startswith("Ready"):
            return line.split("gRPC ")[1].split(",")[0]
    pytest.fail("the server did not start")


@pytest.mark.slow
def test_a_killed_model_process_and_a_killed_server_are_replaced(exported, encode, caplog):
    data = encode(draw("test", 0, size=80)[0])
    with TritonServer(exported.repository) as server, Client(server.grpc_url) as client:
        before = client.predict(data)
        for restarts, kill in enumerate((lambda: min(stubs(server.pid)), lambda: server.pid), 1):
            os.kill(kill(), signal.SIGKILL)
            _wait(lambda: server.restarts == restarts, 60)  # noqa: B023
            assert client.predict(data).probabilities == before.probabilities
        assert "process has died" in caplog.text
        assert "tritonserver has ended" in caplog.text
        text = fetch(server.metrics_url).decode()
        assert "mbdcnn_server_restarts_total 2.0" in text
        assert "mbdcnn_server_up 1.0" in text
        assert 'nv_inference_request_success{model="mbdcnn"' in text
        left = stubs(server.pid)
    assert not any(_alive(pid) for pid in left)
    server.stop()  # a second time is no error


@pytest.mark.slow
def test_a_server_that_hangs_is_replaced(exported, encode, caplog):
    data = encode(draw("test", 0, size=80)[0])
    with (
        TritonServer(exported.repository, probe_interval=0.5, hung_after=1.0) as server,
        Client(server.grpc_url) as client,
    ):
        before = client.predict(data)
        os.kill(server.pid, signal.SIGSTOP)
        _wait(lambda: server.restarts == 1, 120)
        assert client.predict(data).probabilities == before.probabilities
    assert "The server hangs" in caplog.text


@pytest.mark.slow
def test_a_server_that_cannot_start_again_is_given_up(exported, monkeypatch):
    monkeypatch.setattr("serve._supervisor._MOST_FAILURES", 2)
    others = _shared_memory(os.getpid())  # of the server that all tests share
    server = TritonServer(exported.repository).start()
    try:
        broken = server._folder / "live" / "cam" / "1" / "model.onnx"
        broken.write_bytes(b"not a network")
        os.kill(server.pid, signal.SIGKILL)
        server._thread.join(120)
        with pytest.raises(UserError, match=r"(?s)failed 2 times in a row to start again; giving up.*cam"):
            server.check()
    finally:
        server.stop()
    assert set(_shared_memory(os.getpid())) <= set(others)


def test_ctrl_c_stops_cleanly(command, encode):
    with Client(_ready(command)) as client:
        client.predict(encode(draw("test", 0, size=80)[0]))
    family = stubs(command.pid) | {s for child in stubs(command.pid) for s in stubs(child)}
    assert len(family) >= 7
    assert _shared_memory(command.pid)
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert command.returncode == 0
    assert error.splitlines()[-1] == "Stopped."
    assert not any(_alive(pid) for pid in family)
    assert not _shared_memory(command.pid)


def test_a_signal_while_starting_stops_cleanly(command):
    command.stderr.readline()
    time.sleep(1.0)
    command.send_signal(signal.SIGTERM)
    _, error = command.communicate(timeout=60)
    assert command.returncode == 0
    assert error.splitlines()[-1] == "Stopped."
    assert not _shared_memory(command.pid)


@pytest.mark.parametrize("command", [("nohup",)], indirect=True)
def test_a_lost_terminal_does_not_end_what_nohup_runs(command, encode):
    with Client(_ready(command)) as client:
        command.send_signal(signal.SIGHUP)
        time.sleep(1.5)  # it looks for signals twice a second
        assert client.predict(encode(draw("test", 0, size=80)[0])).label
    command.terminate()
    _, error = command.communicate(timeout=60)
    assert command.returncode == 0
    assert error.splitlines()[-1] == "Stopped."


def test_a_server_that_was_stopped_before_it_answered_is_not_drained(exported):
    server = TritonServer(exported.repository)
    server.request_stop()
    server.start()
    server.stop()
    assert server._supervisor._answering_since is None


def test_a_server_that_cannot_be_started_is_one_sentence(exported, monkeypatch, tmp_path):
    monkeypatch.setattr("serve._shared_memory._FOLDER", tmp_path / "absent")
    with pytest.raises(UserError, match=r"tritonserver could not be started \(No such file or directory\)"):
        TritonServer(exported.repository).start()


def test_the_server_ends_with_a_killed_supervisor(command):
    _ready(command)
    (server,) = stubs(command.pid)
    family = {server} | stubs(server)
    command.kill()
    _wait(lambda: not any(_alive(pid) for pid in family), 60)
    remove_orphans()  # what the next server does first
    assert not _shared_memory(command.pid)


def test_shared_memory_of_a_living_server_is_not_taken_for_an_orphan():
    memory = SharedMemory()
    own = Path("/dev/shm") / f"{memory.prefix}region"
    own.touch()
    remove_orphans()
    assert own.exists()
    memory.remove()
    assert not own.exists()


def test_a_taken_port_is_named(exported):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} on 127.0.0.1 is taken.*--grpc-port"):
            TritonServer(exported.repository, Ports(0, port, 0)).start()


def test_an_address_of_another_machine_is_refused(exported):
    with pytest.raises(UserError, match="--host"):
        TritonServer(exported.repository, host="192.0.2.1").start()
    with pytest.raises(UserError, match="IPv6"):
        TritonServer(exported.repository, host="::1").start()


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a model repository"):
        TritonServer(tmp_path).start()
    with pytest.raises(UserError, match="There is no model repository"):
        TritonServer(tmp_path / "absent").start()


def test_a_broken_network_quotes_the_log_and_leaves_nothing(exported, tmp_path):
    broken = tmp_path / "repository"
    shutil.copytree(exported.repository, broken)
    (broken / "mask_cn" / "1" / "model.onnx").write_bytes(b"not a network")
    before = set(_shared_memory(os.getpid()))
    with pytest.raises(UserError, match=r"(?s)could not start.*mask_cn"):
        TritonServer(broken).start()
    assert set(_shared_memory(os.getpid())) <= before
