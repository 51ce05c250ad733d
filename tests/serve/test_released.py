"""The networks that come with the package: whole, small, of this code, and measured as the card says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mbdcnn.classes import CLASSES
from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve._profiles import SOURCE
from serve._versions import FORMAT_VERSION
from serve.card import CARD, CLAIM, write_card
from serve.released import RELEASED, main, place
from serve.verify import verify

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "benchmarks" / "results" / "isic2017-release"
ABOUT = ROOT / "serve" / "about" / "isic2017.yaml"
LARGEST = 30e6  # bytes, for networks that travel in git


def test_it_is_whole_small_and_of_this_code() -> None:
    manifest = verify(RELEASED)
    assert manifest["bytes"] == sum((RELEASED / name).stat().st_size for name in manifest["files"]) < LARGEST
    assert manifest["versions"] == [1]
    assert manifest["format_version"] == FORMAT_VERSION
    assert tuple(manifest["classes"]) == CLASSES
    assert manifest["calibration"]["temperature"] > 0
    assert str(Path.home()) not in (RELEASED / "manifest.json").read_text()
    for script in RELEASED.rglob("*.py"):
        name = "onnx_model.py" if script.name == "model.py" else script.name
        sources = (SOURCE / script.relative_to(RELEASED), SOURCE / name, ROOT / "mbdcnn" / name)
        source = next(path for path in sources if path.is_file())
        assert script.read_text() == source.read_text(), f"{script} is older than {source}: export the run again"


def test_the_cards_are_what_the_command_writes_of_the_filed_measurements(tmp_path: Path) -> None:
    others = {path.stem.replace("_", " "): path for path in sorted(MEASURED.glob("*.json")) if path.stem != "metrics"}
    write_card(RELEASED, MEASURED / "metrics.json", tmp_path, compare=others, paper=True, about=ABOUT)
    for name in (CARD, CLAIM):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "`make card` writes it anew"


def test_a_copy_is_a_repository_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "repository")]) == 0
    assert "version 1, the released networks" in capsys.readouterr().out
    assert verify(tmp_path / "repository") == verify(RELEASED)
    with pytest.raises(UserError, match="is a model repository already"):
        place(tmp_path / "repository")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").touch()
    with pytest.raises(UserError, match="holds files that no export wrote"):
        place(tmp_path / "else")


@pytest.mark.server
def test_predict_answers_out_of_the_box(tmp_path: Path) -> None:
    Image.fromarray(draw("test", 0, size=200)[0]).save(tmp_path / "lesion.jpg")
    words = ["predict", tmp_path / "lesion.jpg", "--repository", RELEASED, "--out", tmp_path / "answers", "--json"]
    command = [sys.executable, "-m", "mbdcnn", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Starting a server for this call")
    (answer,) = json.loads(done.stdout)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["unfamiliarity"] > 0
    assert {path.name for path in (tmp_path / "answers").iterdir()} == {
        "lesion_mask.png",
        "lesion_cam.png",
        "lesion_overlay.png",
        "predictions.csv",
    }
