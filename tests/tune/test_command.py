"""What a user gets wrong is one sentence and exit code 2, before anything is trained; without an install too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from mbdcnn.cli import cli
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = ["--preset", "smoke", "coarse.batch_size=8", "coarse.epochs=2"]


def refused(*words: str | Path) -> str:
    result = CliRunner().invoke(cli, ["tune", *map(str, words)])
    assert isinstance(result.exception, UserError), result
    return str(result.exception)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--space", "papper"], "There is no space papper; did you mean paper?"),
        (["--algorithm", "ashaa"], "There is no algorithm ashaa; did you mean asha?"),
        (["--seeds", "0"], "--seeds is 0; give at least 1."),
        (["--finalists", "0"], "--finalists is 0; give at least 1."),
        (["--processes", "0"], "--processes is 0; give at least 1."),
        (["--cpus", "0"], "--cpus is above 0 and --gpus at least 0; change them."),
        (["--at-once", "0"], "--at-once is 0; give at least 1."),
        (["--retries", "-1"], "--retries is -1; give at least 0."),
        (["--algorithm", "pbt", "--processes", "2"], "pbt trains each trial in one process"),
        (["loss.margin=0.2"], "loss.margin is what the search varies; leave it out of the settings."),
        (["--also", "augmentation", "augmentation.shift_px=3"], "augmentation.shift_px is what the search varies"),
        (["loss.topk=5"], "There is no field loss.topk; did you mean loss.top_k?"),
        (["--encoder", "resnet10x"], "timm has no encoder resnet10x"),
        (["coarse.batch_size=64"], "fewer than coarse.batch_size = 64"),
        (["--prepared", "nowhere"], "There is no folder nowhere"),
        (["--address", "127.0.0.1:1"], "There is no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], sentence: str, sample: Manifest, tmp_path: Path) -> None:
    assert sentence in refused("--data", sample.root, "--out", tmp_path / "out", *SMALL, *words)
    assert not (tmp_path / "out" / "search.json").exists()


def test_data_without_masks(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = ["image,label,split"]
    for number in range(12):
        Image.new("RGB", (70, 60), (number * 20, 80, 90)).save(tmp_path / "data" / "images" / f"{number}.png")
        rows.append(f"{number},nevus,{'training' if number < 9 else 'validation'}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows) + "\n")
    said = refused("--data", tmp_path / "data", "--out", tmp_path / "out", *SMALL)
    assert "has no training image with a mask; stage coarse needs some" in said


def test_a_results_folder_of_another_search(sample: Manifest, tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps({"search": {"space": "wide"}}))
    assert "holds another search (space, " in refused("--data", sample.root, "--out", tmp_path, "--resume", *SMALL)


def test_the_script_is_the_verb_without_an_install(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(ROOT / "tune" / "search.py"), "--data", str(tmp_path), "--space", "widee"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mbdcnn: There is no space widee; did you mean wide? The spaces are paper, wide.\n"
    shown = subprocess.run([*command[:3], "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "Usage: mbdcnn tune [OPTIONS]" in shown.stdout


def test_no_file_of_the_room_hides_a_package() -> None:
    names = {path.stem for path in (ROOT / "tune").glob("*.py")}
    assert not names & {"ray", "optuna", "tune", "train", "mbdcnn", *sys.stdlib_module_names}
