"""Runs that are killed without warning, wherever they write: the same command ends as if nothing had happened."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_runs import call, call_killed, command, weights

from mbdcnn.config import STAGES

pytestmark = pytest.mark.slow
OFTEN = "engine.checkpoint_minutes=1e-9"  # a checkpoint a step

# In the order of a run: what is written when everything is killed.
MOMENTS = [
    ("open", "coarse/config.yaml.part", 1),
    ("open", "manifest.json.part", 1),
    ("open", "step-000001.part/optimizer.safetensors", 1),
    ("os.rename", "step-000002.part", 1),
    ("open", "best-0001.safetensors.part", 1),
    ("open", "coarse/log.jsonl", 1),
    ("os.rename", "step-000003.part", 1),
    ("os.rename", "step-000002.old.part", 1),
    ("shutil.rmtree", "step-000003.old.part", 1),
    ("open", "coarse/weights.safetensors.part", 1),
    ("os.rename", "coarse/metrics.json.part", 1),
    ("open", "coarse/masks", 20),
    ("open", "mask/config.yaml.part", 1),
    ("os.rename", "step-000004.part", 1),
    ("open", "enhanced/checkpoints/step-000005.part/state.json", 1),
    ("os.rename", "enhanced/metrics.json.part", 1),
]


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "two"])
def processes(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(processes: str, sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("kills") / "whole"
    call(command("all", sample_folder, run, "--nproc", processes))
    return run


@pytest.mark.multiprocess
def test_a_run_killed_wherever_it_writes_ends_with_the_same_weights(
    whole: Path, processes: str, sample_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    words = command("all", sample_folder, run, "--nproc", processes, OFTEN)
    for event, text, count in MOMENTS if processes == "1" else MOMENTS[2::4]:
        call_killed(words, event, text, count, tmp_path / "site")
    call(words)
    for stage in STAGES:
        assert weights(run, stage) == weights(whole, stage), stage
        assert not list((run / stage).rglob("*.part"))
    masks = {f.relative_to(whole): f.read_bytes() for f in (whole / "coarse" / "masks").rglob("*.png")}
    assert masks == {f.relative_to(run): f.read_bytes() for f in (run / "coarse" / "masks").rglob("*.png")}


@pytest.mark.multiprocess
def test_torchrun_starts_anew_when_a_worker_is_killed(sample_folder: Path, tmp_path: Path, whole: Path) -> None:
    if not (whole / "coarse" / "metrics.json").read_text().count('"processes": 2'):
        pytest.skip("compared with the run of two processes")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def hook(name, arguments):\n"
        "    if name == 'os.rename' and 'step-000004.part' in str(arguments[0]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "if os.environ.get('TORCHELASTIC_RESTART_COUNT') == '0':\n"
        "    sys.addaudithook(hook)\n"
    )
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    own = command("coarse", sample_folder, tmp_path / "r", OFTEN)[1:]
    done = subprocess.run(
        [*torchrun, "--max-restarts", "1", *own[:1], "--", *own[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    assert weights(tmp_path / "r") == weights(whole)


@pytest.mark.multiprocess
def test_another_number_of_processes_goes_on_and_is_said(sample_folder: Path, tmp_path: Path) -> None:
    words = command("coarse", sample_folder, tmp_path / "r", OFTEN, "--nproc", "2")
    call_killed(words, "os.rename", "step-000004.part", 1, tmp_path / "site")
    heard = call(command("coarse", sample_folder, tmp_path / "r"))
    assert "goes on with 2 -> 1 processes" in heard
    assert "epoch   2" in heard
    assert "epoch   1" not in heard


def test_a_disk_that_takes_no_more_is_one_sentence_and_costs_no_checkpoint(
    sample_folder: Path, tmp_path: Path, whole: Path
) -> None:
    if not (whole / "coarse" / "metrics.json").read_text().count('"processes": 1'):
        pytest.skip("compared with the run of one process")
    run = tmp_path / "r"
    words = command("coarse", sample_folder, run, OFTEN)
    call_killed(words, "os.rename", "step-000003.part", 1, tmp_path / "site")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    full = subprocess.run(words, preexec_fn=limit, stderr=subprocess.PIPE, text=True, timeout=600)
    assert full.returncode == 2
    last = full.stderr.splitlines()[-1]
    assert last.startswith(f"mbdcnn: {run}/coarse/checkpoints/")
    assert last.endswith("File too large; name another place, or mend its permissions or space.")
    assert "Traceback" not in full.stderr
    kept = sorted(path.name for path in (run / "coarse" / "checkpoints").glob("step-*"))
    assert kept == ["step-000001", "step-000002"]
    call(words)
    assert weights(run) == weights(whole)


def test_a_place_that_cannot_be_written_is_one_sentence(sample_folder: Path) -> None:
    heard = call(command("coarse", sample_folder, Path("/proc/no/run")), code=2)
    assert heard.splitlines()[-1].startswith("mbdcnn: /proc/no")


@pytest.mark.multiprocess
def test_children_do_not_outlive_a_killed_parent(sample_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    words = command("coarse", sample_folder, run, "--nproc", "2", "coarse.epochs=500")
    words.remove("coarse.epochs=2")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list((run / "coarse" / "checkpoints").glob("step-*")) and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    process.wait()
    for _ in range(300):
        if not _alive(process.pid):
            break
        time.sleep(0.1)
    assert not _alive(process.pid)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
