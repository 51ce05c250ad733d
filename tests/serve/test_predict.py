from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mbdcnn.classes import CLASSES
from mbdcnn.data.sample import draw
from mbdcnn.errors import UserError
from serve.client import Client
from serve.pictures import cam_picture, overlay_picture
from serve.predict import _unique_stems, describe, list_images, predict_files


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for position in range(2):
        Image.fromarray(draw("test", position, size=100)[0]).save(folder / f"lesion{position}.jpg")
    (folder / "notes.txt").write_text("not asked about")
    return folder


def test_folders_are_opened_and_nothing_is_asked_twice(folder):
    images = list_images([folder, folder / "lesion0.jpg", folder / "absent.jpg"])
    assert [p.name for p in images] == ["lesion0.jpg", "lesion1.jpg", "absent.jpg"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no images"):
        list_images([tmp_path])
    with pytest.raises(UserError, match=r"nothing to predict"):
        list_images([])
    with pytest.raises(UserError, match=r"absent.jpg: there is no such file"):
        list_images([tmp_path / "absent.jpg", tmp_path / "gone.jpg"])


def test_pictures_of_equal_names_do_not_overwrite_each_other(tmp_path):
    images = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg", tmp_path / "x-2.png", tmp_path / "x.png"]
    assert _unique_stems(images) == ["x", "x-2", "x-2-2", "x-3"]


def test_out_may_not_be_the_folder_of_images(folder):
    with Client("127.0.0.1:1") as client, pytest.raises(UserError, match=r"also a folder of images"):
        predict_files(client, [folder], folder)


def test_an_absent_server_ends_it_all(folder, tmp_path):
    with Client("127.0.0.1:1") as client, pytest.raises(UserError, match=r"No server answers at 127.0.0.1:1"):
        predict_files(client, [folder], tmp_path / "out")


def test_a_strange_picture_is_warned_of():
    entry = {
        "image": "cat.jpg",
        "label": "nevus",
        "probabilities": {"nevus": 0.9, "melanoma": 0.1},
        "lesion_fraction": 0.2,
        "mask_doubt": 0.1,
        "class_doubt": 0.1,
    }
    assert describe({**entry, "unfamiliarity": 1.2}).endswith("so do not rely on this")
    for familiar in (0.9, None):
        assert describe({**entry, "unfamiliarity": familiar}).endswith("lesion on 20.0% of the image")


@pytest.mark.server
def test_a_bad_file_among_several(url, folder, tmp_path, capsys):
    (folder / "letter.jpg").write_text("Dear colleague, ...")
    out = tmp_path / "out"
    with Client(url) as client:
        entries = predict_files(client, [folder, tmp_path / "absent.png"], out)
    json.dumps(entries)
    by_name = {e["image"].rpartition("/")[2]: e for e in entries}
    assert "not a readable JPEG, PNG or BMP" in by_name["letter.jpg"]["error"]
    assert "there is no such file" in by_name["absent.png"]["error"]
    assert capsys.readouterr().err.count("\n") == 4
    for name in ("lesion0", "lesion1"):
        entry = by_name[f"{name}.jpg"]
        native = _pixels(folder / f"{name}.jpg").shape
        mask = _pixels(out / f"{name}_mask.png")
        assert mask.shape == native[:2]
        assert (mask > 0).mean() == pytest.approx(entry["lesion_fraction"])
        assert _pixels(out / f"{name}_cam.png").shape == native
        assert _pixels(out / f"{name}_overlay.png").shape == native
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert entry["label"] in CLASSES
        assert entry["class_doubt"] == pytest.approx(1 - max(entry["probabilities"].values()), abs=1e-6)
        assert 0 <= entry["mask_doubt"] <= 1
        assert entry["unfamiliarity"] is None  # these networks were exported without a calibration
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["image"] for r in rows] == [e["image"] for e in entries]
    assert {r["label"] for r in rows if not r["error"]} <= set(CLASSES)
    assert float(rows[0]["melanoma"]) == pytest.approx(entries[0]["probabilities"]["melanoma"])
    assert float(rows[0]["mask_doubt"]) == pytest.approx(entries[0]["mask_doubt"])
    assert {r["unfamiliarity"] for r in rows} == {""}
    assert not (out / "letter_mask.png").exists()


def test_overlay_draws_the_border_and_leaves_skin_without_evidence_alone():
    image = np.full((200, 300, 3), 180, np.uint8)
    mask = np.zeros((200, 300), np.uint8)
    mask[60:140, 100:200] = 255
    cam = np.zeros((4, 6), np.float32)
    cam[2, 3] = 1
    shown = np.asarray(overlay_picture(image, mask, cam))
    assert shown.shape == image.shape
    assert (shown[100, 100] == (64, 255, 224)).all()
    assert (shown[5, 5] == 180).all()
    assert (shown[100, 170] != 180).any()


def test_large_pictures_are_scaled_down_and_thin_ones_survive():
    assert cam_picture(np.ones((7, 7), np.float32), 3000, 4000).size == (1600, 1200)
    assert cam_picture(np.ones((7, 7), np.float32), 1, 5000).size == (1600, 1)
    overlay_picture(np.zeros((1, 5000, 3), np.uint8), np.zeros((1, 5000), np.uint8), np.zeros((7, 7), np.float32))


def _predict(url, *words):
    command = [sys.executable, "-m", "mbdcnn", "predict", "--url", url, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.server
def test_where_no_server_is_asked_one_answers_for_the_call(exported, folder, tmp_path):
    words = ["predict", folder, "--repository", exported.repository, "--json"]
    command = [sys.executable, "-m", "mbdcnn", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Starting a server for this call; `mbdcnn serve` keeps one ...\n")
    assert ["error" in answer for answer in json.loads(done.stdout)] == [False, False]
    done = subprocess.run([*command, "--url", "127.0.0.1:9"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--url asks a server that runs and --repository starts one; leave one of them out." in done.stderr


def _rows(out):
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.server
def test_the_command_answers_all_it_can_and_ends_with_code_2(url, folder, tmp_path):
    (folder / "letter.jpg").write_text("Dear colleague, ...")
    out = tmp_path / "out"
    for _ in range(2):  # a second call replaces what the first one left
        process = _predict(url, folder, "--out", out, "--concurrency", 2, "--deadline", 50, "--json")
        document, errors = process.communicate(timeout=120)
        assert process.returncode == 2, errors
        assert [("error" in entry) for entry in json.loads(document)] == [False, False, True]
        assert [bool(row["error"]) for row in _rows(out)] == [False, False, True]
        assert not list(out.glob("*.part"))


@pytest.mark.server
def test_ctrl_c_leaves_a_whole_table_of_what_was_done(url, folder, tmp_path):
    picture = (folder / "lesion0.jpg").read_bytes()
    for i in range(3000):
        (folder / f"copy{i:04}.jpg").write_bytes(picture)
    out = tmp_path / "out"
    process = _predict(url, folder, "--out", out)
    told = [process.stderr.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("mbdcnn: stopped")
    assert "Traceback" not in errors
    rows = _rows(out)
    assert len(told) <= len(rows) < 3000
    for row in rows:
        assert row["label"] in CLASSES
        assert _pixels(out / f"{row['image'].rpartition('/')[2][:-4]}_mask.png").ndim == 2


def test_wrong_options_are_one_sentence(folder):
    for words, sentence in (
        (["--tls-cert", folder / "lesion0.jpg"], "--tls-cert and --tls-key belong together"),
        (["--tls-ca", folder / "lesion0.jpg"], "is not a PEM file"),
        (["--concurrency", 0], "0 is not in the range"),
        (["--deadline", 0], "0.0 is not in the range"),
    ):
        process = _predict("127.0.0.1:1", folder, *words)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert sentence in errors
        assert "Traceback" not in errors
