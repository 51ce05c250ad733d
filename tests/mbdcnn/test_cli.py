"""The command: one sentence and exit code 2 for what a user can mend; JSON alone on standard output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from mbdcnn.config import override, save
from mbdcnn.data.sample import write_sample
from mbdcnn.presets import preset


def mbdcnn(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mbdcnn", *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def refusal(*words: str | Path) -> str:
    """The one sentence that a refused command says."""
    done = mbdcnn(*words, code=2)
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    write_sample(folder, {"training": 6, "validation": 3}, size=120)
    return folder


def test_index_answers_in_json_and_writes_the_manifest(drawn: Path, tmp_path: Path) -> None:
    done = mbdcnn("data", "index", drawn, "--out", tmp_path / "m.json", "--json")
    answer = json.loads(done.stdout)
    assert answer["images"] == 9
    assert answer["faults"] == []
    assert len(json.loads((tmp_path / "m.json").read_text())["items"]) == 9


def test_index_of_a_plain_folder_says_that_splits_were_drawn(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, colour in (("a", "white"), ("b ü", "black")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,label\na,benign\nb ü,malignant\n", encoding="utf-8")
    lines = mbdcnn("data", "index", tmp_path).stderr.splitlines()
    assert lines[0].startswith("2 images come without a split: about 70 % are for training, 15 % for validation")
    assert lines[0].endswith("give labels.csv a column split")
    (tmp_path / "labels.csv").write_text("image,label,split\na,benign,train\nb ü,malignant,test\n", encoding="utf-8")
    assert len(mbdcnn("data", "index", tmp_path).stderr.splitlines()) == 1


def test_sample_is_drawn_and_indexed_by_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    counts = ("--training", "3", "--validation", "3", "--test", "0")
    assert json.loads(mbdcnn("data", "sample", folder, *counts, "--json").stdout)["images"]["training"] == 3
    assert json.loads(mbdcnn("data", "index", folder, "--json").stdout)["images"] == 6


@pytest.mark.parametrize("verb", [("data", "index"), ("train", "all", "--data")])
def test_missing_and_empty_folders(tmp_path: Path, verb: tuple[str, ...]) -> None:
    assert f"{tmp_path / 'none'} does not exist" in refusal(*verb, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refusal(*verb, tmp_path / "empty")


def test_a_csv_without_a_needed_column(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images = folder / "ISIC-2017_Training_Data"
    images.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(images / "ISIC_0000000.jpg")
    table = folder / "ISIC-2017_Training_Part3_GroundTruth.csv"
    table.write_text("image_id,seborrheic_keratosis\nISIC_0000000,0.0\n")
    sentence = refusal("data", "index", folder)
    assert table.name in sentence
    assert "melanoma" in sentence


def test_unknown_preset_and_field(drawn: Path) -> None:
    assert "did you mean smoke?" in refusal("train", "all", "--data", drawn, "--preset", "smok")
    assert "did you mean coarse.epochs?" in refusal("train", "all", "--data", drawn, "coarse.epoch=1")


def test_weights_that_do_not_fit_name_their_first_missing_tensors(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet10t.safetensors"
    state = timm.create_model("resnet10t").state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("layer4.")}, path)
    settings = (f"network.weights={path}", "coarse.batch_size=2", "mask.batch_size=2", "enhanced.batch_size=2")
    sentence = refusal("train", "all", "--data", drawn, "--run", tmp_path / "run", "--preset", "smoke", *settings)
    assert "the first are layer4.0.conv1.weight, " in sentence
    assert not (tmp_path / "run").exists()


def test_what_is_not_there_yet(drawn: Path, tmp_path: Path) -> None:
    assert "There is no run folder" in refusal("evaluate", "--run", tmp_path / "none", "--data", drawn)
    assert "There is no run folder" in refusal("export", "--run", tmp_path / "none", "--out", tmp_path / "repository")
    assert "repository" in refusal("serve", "--repository", tmp_path / "none")
    (tmp_path / "run").mkdir()
    assert "has no finished stage coarse" in refusal("evaluate", "--run", tmp_path / "run", "--data", drawn)


def test_a_server_that_is_not_there(drawn: Path) -> None:
    image = next((drawn / "ISIC-2017_Validation_Data").glob("*.jpg"))
    assert "No server answers at 127.0.0.1:9" in refusal("predict", image, "--url", "127.0.0.1:9")
    assert "not a server's address" in refusal("predict", image, "--url", "nowhere")


def test_usage_mistakes_exit_with_two() -> None:
    assert "'coars' is not one of" in mbdcnn("train", "coars", "--data", "x", code=2).stderr
    assert "No such command" in mbdcnn("trian", code=2).stderr
    assert mbdcnn("--help").stdout.startswith("Usage: mbdcnn")


def test_the_limit_of_pixels_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    for name, side in (("small", 500), ("large", 1100)):
        Image.new("L", (side, side)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,label\nsmall,benign\nlarge,benign\n")
    assert json.loads(mbdcnn("data", "index", tmp_path, "--json").stdout)["images"] == 2
    monkeypatch.setenv("MBDCNN_MAX_MEGAPIXELS", "1")
    answer = json.loads(mbdcnn("data", "index", tmp_path, "--json").stdout)
    (fault,) = answer["faults"]
    assert (answer["images"], fault["path"]) == (1, "images/large.png")
    assert "1100 x 1100 pixels, more than 1000000" in fault["reason"]
    for wrong in ("many", "0", "2.5", "1000"):
        monkeypatch.setenv("MBDCNN_MAX_MEGAPIXELS", wrong)
        assert f"MBDCNN_MAX_MEGAPIXELS is {wrong}" in refusal("data", "index", tmp_path)


@pytest.mark.parametrize("wrong", ["many", "0", "1.5", "5000"])
def test_the_limit_of_encoded_bytes_is_a_number(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBDCNN_MAX_ENCODED_MB", wrong)
    assert f"MBDCNN_MAX_ENCODED_MB is {wrong}" in refusal("export", "--run", tmp_path, "--out", tmp_path / "out")


def test_settings_to_start_from_are_a_preset_or_a_file(drawn: Path, tmp_path: Path) -> None:
    words = ["train", "coarse", "--data", drawn, "--run", tmp_path / "r"]
    save(override(preset("smoke"), ["coarse.batch_size=64"]), tmp_path / "best.yaml")
    assert "fewer than coarse.batch_size = 64" in refusal(*words, "--config", tmp_path / "best.yaml")
    said = refusal(*words, "--config", tmp_path / "best.yaml", "--preset", "smoke")
    assert "--preset and --config both name the settings" in said
    assert "no.yaml is not a usable configuration" in refusal(*words, "--config", tmp_path / "no.yaml")
