"""The prepared copies of a data set: made once, whole, and only ever used for what they were made from."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbdcnn.data import isic2017
from mbdcnn.data.index import index_folder
from mbdcnn.data.prepared import find_copies, prepare
from mbdcnn.data.sample import write_ph2_sample, write_sample
from mbdcnn.errors import UserError
from mbdcnn.files import locked
from mbdcnn.preprocessing import decode_image, decode_mask

SIDE = 40


def stamps(out: Path) -> dict[str, int]:
    """When each copy was written."""
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in out.glob("*/*")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_sample(root, {"training": 4, "validation": 3, "test": 2}, size=100, extra=1)
    return root


def test_every_image_and_mask_has_a_copy_of_its_shape(data: Path) -> None:
    manifest = index_folder(data)
    done = prepare(manifest, data / "prepared", SIDE)
    assert (done["images"], done["masks"], done["already_there"], done["short_side"]) == (10, 9, 0, SIDE)
    originals = [manifest.root / p for i in manifest.items for p in (i.image, i.mask) if p]
    assert done["bytes_before"] == sum(p.stat().st_size for p in originals)
    files = [p for p in (data / "prepared").glob("*/*") if p.is_file()]
    assert done["bytes_after"] == sum(p.stat().st_size for p in files)
    copies = find_copies(manifest, data / "prepared")
    assert sorted(files) == sorted([*copies.images.values(), *copies.masks.values()])
    for item in manifest.items:
        image = decode_image(copies.images[item.sha256].read_bytes())
        assert min(image.shape[:2]) == SIDE
        assert image.shape[1] / image.shape[0] == pytest.approx(item.width / item.height, abs=1 / SIDE)
        if item.mask_sha256 is not None:
            mask = decode_mask(copies.masks[item.mask_sha256].read_bytes())
            assert mask.shape == image.shape[:2]
            assert mask.mean() == pytest.approx(decode_mask(manifest.read(item.mask or "")).mean(), abs=0.01)


def test_copies_in_the_data_folder_do_not_disturb_its_index(data: Path, tmp_path: Path) -> None:
    write_ph2_sample(tmp_path / "ph2", 2, size=100)
    for root in (data, tmp_path / "ph2", tmp_path / "ph2" / "PH2Dataset"):
        before = index_folder(root)
        done = prepare(before, root / "prepared", SIDE)
        assert done["images"] == len(before.items)
        assert index_folder(root) == before


def test_a_second_call_makes_nothing(data: Path) -> None:
    out = data / "prepared"
    prepare(index_folder(data), out, SIDE)
    before = stamps(out)
    assert prepare(index_folder(data), out, SIDE)["already_there"] == 19
    assert stamps(out) == before


def test_a_changed_image_is_done_anew_and_what_nobody_needs_goes(data: Path) -> None:
    out = data / "prepared"
    old = index_folder(data)
    prepare(old, out, SIDE)
    mine = out / "images" / "mine.jpg"
    mine.write_bytes(b"mine")
    image = data / old.items[0].image
    Image.fromarray(decode_image(image.read_bytes())[::-1]).save(image)
    new = index_folder(data)
    with pytest.raises(
        UserError, match=f"other files or labels than {data} has; `mbdcnn data prepare {data} --short-side 40` "
    ):
        find_copies(new, out)
    assert prepare(new, out, SIDE)["already_there"] == 18
    copies = find_copies(new, out)
    assert new.items[0].sha256 in copies.images
    assert set(out.glob("images/*")) == {mine, *copies.images.values()}
    assert prepare(new, out, 32)["already_there"] == 0
    assert set(out.glob("images/*")) == {mine, *find_copies(new, out).images.values()}


def test_the_same_file_in_two_splits_is_copied_once(data: Path) -> None:
    manifest = index_folder(data)
    there = data / isic2017.images_folder("test") / Path(manifest.items[0].image).name
    shutil.copy(data / manifest.items[0].image, there)
    shutil.copy(data / (manifest.items[0].mask or ""), data / isic2017.masks_folder("test"))
    manifest = index_folder(data)
    assert len(manifest.items) == 11
    done = prepare(manifest, data / "prepared", SIDE)
    assert (done["images"], done["masks"]) == (10, 9)
    find_copies(manifest, data / "prepared")


def test_the_longest_id_makes_a_file_name(folder: Any) -> None:
    image_id = "ä" * 98  # 200 bytes with its suffix
    folder.image(image_id)
    folder.labels([[image_id, "0", "0"]])
    manifest = index_folder(folder.root)
    prepare(manifest, folder.root / "prepared", 32)
    assert len(find_copies(manifest, folder.root / "prepared").images) == 1


def test_what_is_not_whole_is_refused_with_the_mend(data: Path, tmp_path: Path) -> None:
    manifest = index_folder(data)
    out = tmp_path / "copies"
    mend = f"`mbdcnn data prepare {data} --out {out}"

    def refusal() -> str:
        with pytest.raises(UserError) as error:
            find_copies(manifest, out)
        assert mend in str(error.value)
        return str(error.value)

    assert "There is no folder" in refusal()
    prepare(manifest, out, SIDE)
    whole = find_copies(manifest, out)
    one = next(iter(whole.images.values()))
    content = one.read_bytes()

    one.write_bytes(content[:-1])
    assert f"{one} is missing or damaged" in refusal()
    assert prepare(manifest, out, SIDE)["already_there"] == 18
    assert one.read_bytes() == content
    one.unlink()
    assert f"{one} is missing or damaged" in refusal()
    prepare(manifest, out, SIDE)
    assert find_copies(manifest, out) == whole

    record = out / "prepared.json"
    noted = json.loads(record.read_text())
    for damaged in ("{", "[]", "{}", json.dumps({**noted, "format": 0}), json.dumps({**noted, "files": None})):
        record.write_text(damaged)
        assert "holds no whole set" in refusal()
    record.unlink()
    assert "holds no whole set" in refusal()
    assert prepare(manifest, out, SIDE)["already_there"] == 19
    assert find_copies(manifest, out) == whole


def test_originals_that_change_meanwhile_are_named(data: Path) -> None:
    manifest = index_folder(data)
    image = data / manifest.items[2].image
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(UserError, match=f"{image.name} has changed since it was indexed"):
        prepare(manifest, data / "prepared", SIDE)
    image.unlink()
    with pytest.raises(UserError, match=f"{image.name} cannot be read"):
        prepare(manifest, data / "prepared", SIDE)
    assert not (data / "prepared" / "prepared.json").exists()


def test_a_short_side_out_of_range_and_a_second_process_are_refused(data: Path, tmp_path: Path) -> None:
    manifest = index_folder(data)
    with pytest.raises(UserError, match="--short-side is 31; give at least 32"):
        prepare(manifest, tmp_path / "out", 31)
    with locked(tmp_path / "out"), pytest.raises(UserError, match="Another process is at work"):
        prepare(manifest, tmp_path / "out", SIDE)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "mbdcnn", "data", "prepare", *map(str, words)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images that take a while."""
    root = tmp_path_factory.mktemp("large") / "data"
    images = root / isic2017.images_folder("training")
    images.mkdir(parents=True)
    rows = [",".join(isic2017.COLUMNS)]
    field = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for number in range(40):
        picture = Image.fromarray(np.roll(field, number, 1)).resize((2400, 1800), Image.Resampling.BICUBIC)
        picture.save(images / f"ISIC_{number:07d}.jpg")
        rows.append(f"ISIC_{number:07d},0,0")
    (root / isic2017.labels_file("training")).write_text("\n".join(rows))
    return root


def interrupted(root: Path, out: Path, number: int) -> tuple[int, str]:
    """The exit code and the words of a command that got a signal when it had made some of the copies."""
    process = subprocess.Popen(command(root, "--out", out), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("images/*.jpg"))) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(number)
    _, words = process.communicate(timeout=60)
    return process.returncode, words


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interruption_leaves_no_half_file_and_the_same_command_goes_on(
    large: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    code, words = interrupted(large, out, number)
    assert not (out / "prepared.json").exists(), "it was over before it could be stopped"
    before = stamps(out)
    made = {name: time for name, time in before.items() if not name.endswith(".part")}
    assert 5 <= len(made) < 40
    for name in made:
        assert min(decode_image((out / name).read_bytes()).shape[:2]) == 512
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
        (out / "images" / "ISIC_0000039-0123456789abcdef.jpg.part").write_bytes(b"half")  # as if killed in mid-file
    else:
        assert code == 130
        assert words.splitlines()[-1] == "mbdcnn: stopped; the same command goes on after the last whole image."
        assert "Traceback" not in words
        assert made == before
    done = subprocess.run(command(large, "--out", out, "--json"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["already_there"] == len(made)
    assert made.items() <= stamps(out).items()
    assert not list(out.rglob("*.part"))
    assert len(find_copies(index_folder(large), out).images) == 40


@pytest.mark.slow
def test_a_place_that_takes_no_more_is_one_sentence(large: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = tmp_path / "data"
    shutil.copytree(large, data)
    Image.new("RGB", (80, 60)).save(data / isic2017.images_folder("training") / "ISIC_0000000.jpg")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(command(data, "--out", out), preexec_fn=limit, capture_output=True, text=True)
    assert full.returncode == 2
    assert full.stderr.startswith(f"mbdcnn: {out} cannot be written (File too large): make room")
    assert len(full.stderr.splitlines()) == 1
    assert not list(out.rglob("*.part"))
    assert [path.name[:12] for path in out.glob("images/*")] == ["ISIC_0000000"]
    done = subprocess.run(command(data, "--out", out, "--json"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["already_there"] == 1
    below = subprocess.run(command(data, "--out", out / "prepared.json" / "x"), capture_output=True, text=True)
    assert below.returncode == 2
    assert f"{out / 'prepared.json' / 'x'} cannot be written (Not a directory)" in below.stderr
    if os.geteuid():  # root may write anywhere
        out.chmod(0o500)
        closed = subprocess.run(command(data, "--out", out / "new"), capture_output=True, text=True)
        out.chmod(0o700)
        assert "cannot be written (Permission denied)" in closed.stderr
