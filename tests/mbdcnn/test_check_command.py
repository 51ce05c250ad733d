"""`mbdcnn data check` as a user calls it, and the fingerprint that goes with a run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbdcnn.data.sample import write_sample

TRAINED = "ISIC-2017_Training_Data/ISIC_0000000.jpg"
SCORED = "ISIC-2017_Validation_Data/ISIC_1000000.jpg"
TINY = [
    "preprocessing.image_size=64",
    "network.decoder_channels=16",
    "coarse.batch_size=4",
    "coarse.epochs=1",
]


def start(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "mbdcnn", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def mbdcnn(*words: str | Path, code: int = 0) -> tuple[str, str]:
    process = start(*words)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return said, errors


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    folder = tmp_path / "leaky"
    write_sample(folder, {"training": 8, "validation": 3}, size=120)
    shutil.copy(folder / TRAINED, folder / SCORED)
    shutil.copy(
        folder / "ISIC-2017_Training_Part1_GroundTruth" / "ISIC_0000000_segmentation.png",
        folder / "ISIC-2017_Validation_Part1_GroundTruth" / "ISIC_1000000_segmentation.png",
    )
    return folder


def test_the_document_the_page_and_the_warning(leaky: Path) -> None:
    said, errors = mbdcnn("data", "check", leaky, "--json")
    document = json.loads(said)
    assert document == json.loads((leaky / "fingerprint.json").read_text())
    assert "LEAKAGE: 1 pair of images" in errors
    assert f"{SCORED} (validation) is the same file as {TRAINED} (training)" in errors
    assert SCORED in (leaky / "fingerprint.html").read_text()
    assert not list(leaky.glob("*.part"))
    again, _ = mbdcnn("data", "check", leaky, "--json")  # its own files are not taken for data
    assert json.loads(again) == document


def test_index_says_it_in_the_same_words(leaky: Path, tmp_path: Path) -> None:
    _, errors = mbdcnn("data", "index", leaky)
    _, more = mbdcnn("data", "check", leaky, "--out", tmp_path / "new" / "folder")
    assert errors.splitlines()[:2] == more.splitlines()[:2]
    assert "1 pairs that leak" in more
    assert (tmp_path / "new" / "folder" / "fingerprint.html").is_file()
    assert not (leaky / "fingerprint.json").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(leaky: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said, errors = mbdcnn("data", "check", leaky, "--out", tmp_path / "file" / "out", code=2)
    assert said == ""
    (line,) = errors.splitlines()
    assert f"{tmp_path / 'file' / 'out'} cannot be written" in line
    assert "--out" in line


def test_ctrl_c_leaves_no_half_of_a_document(tmp_path: Path) -> None:
    write_sample(tmp_path / "set", {"training": 150}, size=400)
    out = tmp_path / "out"
    process = start("data", "check", tmp_path / "set", "--out", out)
    while not out.is_dir() and process.poll() is None:  # made before the images are looked at
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "mbdcnn: stopped."
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_training_warns_of_leakage_and_keeps_the_fingerprint(leaky: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", "coarse", "--data", leaky, "--run", run, "--preset", "smoke", *TINY)
    _, errors = mbdcnn(*words)
    assert errors.index("LEAKAGE: 1 pair of images") < errors.index("coarse")
    assert f"{SCORED} (validation) is the same file as {TRAINED} (training)" in errors
    document = json.loads((run / "fingerprint.json").read_text())
    metrics = json.loads((run / "coarse" / "metrics.json").read_text())
    assert document["fingerprint"] == metrics["data"]["fingerprint"]
    assert len(document["leakage"]) == 1
    before = (run / "fingerprint.json").stat().st_mtime_ns
    mbdcnn(*words)
    assert (run / "fingerprint.json").stat().st_mtime_ns == before
