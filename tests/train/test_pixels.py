"""Which pixels a run trains on: prepared copies where they fit, and the same ones to its end."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mbdcnn import runs
from mbdcnn.cli import cli
from mbdcnn.config import AugmentationConfig, override
from mbdcnn.data.index import index_folder
from mbdcnn.data.manifest import Manifest
from mbdcnn.data.prepared import find_copies, prepare
from mbdcnn.data.sample import write_sample
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import Preprocessing
from mbdcnn.presets import preset
from train.pipeline import Loader
from train.pixels import choose_copies, record_pixels, with_copies
from train.plan import Plan, plan_run
from train.sampling import TrainingOrder
from train.stages import _sample

SIDE = 128  # two thirds and more of the images' own
TINY = [
    "preprocessing.image_size=64",
    "network.decoder_channels=16",
    *(f"{stage}.batch_size=4" for stage in ("coarse", "mask", "enhanced")),
    *(f"{stage}.epochs=1" for stage in ("coarse", "mask", "enhanced")),
]
CONFIG = override(preset("smoke"), TINY)
STAGE = ("coarse",)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with copies in the usual place."""
    folder = tmp_path_factory.mktemp("pixels") / "data"
    write_sample(folder, {"training": 16, "validation": 6}, size=260)
    prepare(index_folder(folder), folder / "prepared", SIDE)
    return folder


@pytest.fixture(scope="module")
def manifest(data: Path) -> Manifest:
    return index_folder(data)


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Manifest:
    """The same, for tests that spoil it."""
    return index_folder(shutil.copytree(data, tmp_path / "own"))


def planned(manifest: Manifest, run: Path, wanted: str | None = None) -> Plan:
    return with_copies(plan_run(run, STAGE, CONFIG, manifest), STAGE, manifest, wanted)


def begin(plan: Plan) -> None:
    """What a stage writes before it trains."""
    plan.run.mkdir()
    record_pixels(plan)
    plan.manifest.save(plan.run / runs.MANIFEST)


def files(plan: Plan) -> set[Path]:
    samples = [_sample(plan, item, ("truth",)) for item in plan.manifest.items]
    return {path for sample in samples for path in (sample.image, *sample.planes)}


def originals(manifest: Manifest) -> set[Path]:
    return {manifest.root / path for item in manifest.items for path in (item.image, item.mask) if path}


def test_copies_that_fit_are_used_and_named(
    manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = files(planned(manifest, tmp_path / "run"))
    assert used == {path for path in (manifest.root / "prepared").glob("*/*") if path.is_file()}
    words = capsys.readouterr().err
    assert words == f"training on the prepared copies in {manifest.root / 'prepared'}, short side {SIDE}\n"
    assert files(planned(manifest, tmp_path / "run", "none")) == originals(manifest)
    assert capsys.readouterr().err == ""


def test_without_copies_the_originals_are_used_silently(
    own: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (own.root / "prepared").rename(elsewhere)
    assert files(planned(own, tmp_path / "run")) == originals(own)
    assert capsys.readouterr().err == ""
    assert all(path.is_relative_to(elsewhere) for path in files(planned(own, tmp_path / "run", str(elsewhere))))


@pytest.mark.parametrize("spoiled", ["stale", "incomplete", "damaged"])
def test_copies_that_do_not_fit_are_passed_over_unless_named(
    spoiled: str, own: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = own.root / "prepared"
    if spoiled == "stale":
        own = replace(own, items=own.items[1:])
        sentence = "was prepared from other files"
    elif spoiled == "incomplete":
        (usual / "prepared.json").unlink()
        sentence = "holds no whole set"
    else:
        (usual / "prepared.json").write_text("{")
        sentence = "holds no whole set"
    assert files(planned(own, tmp_path / "run")) == originals(own)
    words = capsys.readouterr().err
    assert words.startswith(f"training on the originals: {usual} {sentence}")
    assert f"`mbdcnn data prepare {own.root}" in words
    assert words.count("\n") == 1
    with pytest.raises(UserError, match=sentence):
        planned(own, tmp_path / "run", str(usual))
    with pytest.raises(UserError, match="There is no folder"):
        planned(own, tmp_path / "run", str(tmp_path / "absent"))


def test_copies_too_small_for_the_smallest_crop_must_be_named(
    manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = override(CONFIG, ["preprocessing.image_size=96"])
    assert choose_copies(manifest, None, larger) is None
    assert "the smallest crop at preprocessing.image_size = 96 wants 192" in capsys.readouterr().err
    assert choose_copies(manifest, str(manifest.root / "prepared"), larger) is not None
    whole = override(larger, ["augmentation.crop_min=1"])
    assert choose_copies(manifest, None, whole) is not None


def test_a_run_goes_on_with_the_originals_that_it_began_with(
    own: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    begin(planned(own, run, "none"))
    for note in ("as it is", "from before there were copies"):
        capsys.readouterr()
        assert files(planned(own, run)) == originals(own), note
        assert capsys.readouterr().err == f"training on the originals, with which {run} began\n"
        with pytest.raises(UserError, match="began with the originals; leave out --prepared"):
            planned(own, run, str(own.root / "prepared"))
        (run / "pixels.json").unlink(missing_ok=True)


def test_a_run_goes_on_with_the_copies_that_it_began_with(own: Manifest, tmp_path: Path) -> None:
    run, fast = tmp_path / "run", tmp_path / "fast"
    usual = own.root / "prepared"
    usual.rename(fast)
    begin(planned(own, run, str(fast)))
    used = files(planned(own, run))
    assert all(path.is_relative_to(fast) for path in used)
    with pytest.raises(UserError, match="began with prepared copies; leave out --prepared none"):
        planned(own, run, "none")

    fast.rename(usual)  # the same copies in another place
    assert {path.name for path in files(planned(own, run))} == {path.name for path in used}
    prepare(own, usual, 64)
    again = f"`mbdcnn data prepare {own.root} --out {fast} --short-side {SIDE}`"
    for wanted in (None, str(usual)):
        with pytest.raises(UserError) as error:
            planned(own, run, wanted)
        assert f"{run} began with prepared copies of short side {SIDE}, and there are none such in" in str(error.value)
        assert again in str(error.value)
    prepare(own, fast, SIDE)
    assert files(planned(own, run)) == used

    (run / "pixels.json").write_text('{"prepared": "x"}')
    with pytest.raises(UserError, match=r"pixels\.json is damaged"):
        planned(own, run)


def test_the_batches_of_copies_are_those_of_the_originals(manifest: Manifest) -> None:
    copies = find_copies(manifest, manifest.root / "prepared")
    plans = [Plan(Path("run"), CONFIG, manifest, {}, copies=chosen) for chosen in (None, copies)]
    spec = Preprocessing(64)
    for augmentation in (AugmentationConfig(), AugmentationConfig(crop_min=1, crop_probability=0)):
        loaders = [
            Loader(
                [_sample(plan, item, ("truth",)) for item in plan.items("training", "coarse")],
                ("truth",),
                TrainingOrder(16, 8, 0),
                spec,
                augmentation,
                0,
                torch.device("cpu"),
            )
            for plan in plans
        ]
        for one, other in zip(*(loader.epoch(3) for loader in loaders), strict=True):
            levels = (one.images - other.images).abs() * 127.5
            assert 0 < levels.mean((1, 2, 3)).max() < 0.6
            assert levels.max() < 12
            truth, copied = one.planes["truth"], other.planes["truth"]
            both = (truth * copied).sum((1, 2, 3)) / (truth + copied).clamp(max=1).sum((1, 2, 3))
            assert both.min() > 0.95


@pytest.mark.slow
def test_the_command_trains_on_copies_and_says_so(own: Manifest, tmp_path: Path) -> None:
    run, usual = tmp_path / "run", own.root / "prepared"

    def train(stage: str, *words: str, code: int = 0) -> str:
        command = ["train", stage, "--data", own.root, "--run", run, "--preset", "smoke", *words, *TINY]
        done = subprocess.run(
            [sys.executable, "-m", "mbdcnn", *map(str, command)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    assert f"training on the prepared copies in {usual}, short side {SIDE}\n" in train("coarse", "--nproc", "2")
    assert json.loads((run / "coarse" / runs.METRICS).read_text())["short_side"] == SIDE
    shutil.rmtree(usual)
    assert "is finished" in train("coarse")
    assert "began with prepared copies of short side" in train("mask", code=2)
    prepare(own, usual, SIDE)
    assert f"short side {SIDE}" in train("mask")


@pytest.mark.slow
def test_experiments_keep_results_on_copies_apart_from_those_on_originals(manifest: Manifest, tmp_path: Path) -> None:
    def stages(*words: str) -> set[str]:
        command = ["reproduce", "table4", "--data", str(manifest.root), "--out", str(tmp_path), "--preset", "smoke"]
        done = CliRunner().invoke(cli, [*command, *words, *TINY])
        assert done.exception is None, done.output
        return {folder.name for folder in (tmp_path / "stages").iterdir()}

    on_originals = stages("--prepared", "none")
    assert "copies" not in (tmp_path / "table4.md").read_text()
    both = stages()
    assert on_originals < both
    assert len(both) == 2 * len(on_originals)
    losses: dict[int | None, set[float]] = {None: set(), SIDE: set()}
    for name in both:
        noted = json.loads((tmp_path / "stages" / name / runs.METRICS).read_text())
        assert noted["short_side"] == (None if name in on_originals else SIDE)
        rows = map(json.loads, (tmp_path / "stages" / name / runs.LOG).read_text().splitlines())
        losses[noted["short_side"]] |= {row["loss"] for row in rows if "step" in row}
    assert not losses[None] & losses[SIDE]  # other pixels were seen indeed
    note = f"Trained on copies reduced to a short side of {SIDE} pixels, scored on the originals."
    assert note in (tmp_path / "table4.md").read_text()
    assert stages() == both
