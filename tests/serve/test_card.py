"""The model card and the CLAIM checklist: every figure comes from a document, and what is missing is said."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.cli import cli
from mbdcnn.config import STAGES, override
from mbdcnn.errors import UserError
from mbdcnn.presets import compact
from serve import _claim
from serve._about import NOT_STATED, read_about
from serve.card import write_card

ABOUT = Path(__file__).parents[2] / "serve" / "about" / "isic2017.yaml"
SCORES = {
    "protocol": "single",
    "split": "validation",
    "n_images": 150,
    "n_masks": 150,
    "n_labels": 149,
    "coarse": {"JA": 0.7721, "DI": 0.85, "AC": 0.93, "SE": 0.88, "SP": 0.95},
    "enhanced": {"JA": 0.8012, "DI": 0.87, "AC": 0.94, "SE": 0.89, "SP": 0.96},
    "classification": {
        "melanoma": {"AUC": 0.9, "AC": 0.85, "SE": 0.6, "SP": 0.92},
        "seborrheic_keratosis": None,
        "mean_AUC": 0.9431,
    },
    "intervals": {
        "level": 0.95,
        "resamples": 2000,
        "coarse": {m: [0.7, 0.8] for m in ("JA", "DI", "AC", "SE", "SP")},
        "enhanced": {m: [0.7712, 0.8234] for m in ("JA", "DI", "AC", "SE", "SP")},
        "enhanced_minus_coarse": {m: [-0.001, 0.05] for m in ("JA", "DI", "AC", "SE", "SP")},
        "classification": {
            "melanoma": {m: [0.8, 0.95] for m in ("AUC", "AC", "SE", "SP")},
            "seborrheic_keratosis": None,
            "mean_AUC": [0.91, 0.97],
        },
    },
    "trust": {
        "calibration": {"ECE": 0.0321, "NLL": 0.6, "Brier": 0.3},
        "mask_doubt": {"AURC": 0.1, "random": 0.2, "oracle": 0.05, "gain": 0.667},
        "class_doubt": None,
        "unfamiliar": 0.05,
    },
    "subgroups": {
        "hair": {
            "with": {"images": 7, "JA": {"value": 0.61, "interval": [0.5, 0.7]}, "accuracy": None, "mean_AUC": None}
        }
    },
    "data": {"name": "isic2017", "fingerprint": "f" * 64},
}
MEASURES = {"AURC": 0.15, "random": 0.2, "oracle": 0.1, "gain": 0.5}
CALIBRATION = {
    "data": {"name": "isic2017", "fingerprint": "e" * 64},
    "split": "validation",
    "temperature": 1.6234,
    "calibration": {
        "images": 149,
        "before": {"ECE": 0.1234, "NLL": 0.9, "Brier": 0.4},
        "after": {"ECE": 0.0456, "NLL": 0.7, "Brier": 0.3},
    },
    "doubt": {"mask": None, "class": {"measures": {"max_probability": MEASURES}}},
    "familiarity": {"kept": 0.95, "foreign": {"noise": {"AUROC": 0.987, "passed": 0.04, "images": 10}}},
}
STAGE = {
    "best": {"JA": 0.77},
    "epochs": 16,
    "best_epoch": 12,
    "seconds": 1800,
    "pretrained": {"tf_efficientnet_lite0": "weights.pth"},
    "data": {"name": "isic2017", "fingerprint": "f" * 64},
    "environment": {"torch": "2.14.1", "bfloat16": True},
}


@pytest.fixture
def files(tmp_path):
    """A manifest and the scores of an evaluation, as the commands leave them."""
    repository = tmp_path / "repository"
    repository.mkdir()
    manifest = {
        "format": "mbdcnn-model-repository",
        "files": {},
        "version": 3,
        "classes": ["nevus", "melanoma", "seborrheic_keratosis"],
        "preprocessing": {"image_size": 224, "mean": [0.5] * 3, "std": [0.5] * 3},
        "provenance": {"run": "candidate", "code_version": "0.1.0+gabc", "stages": {"coarse": STAGE}},
        "parity": {"images": 8, "max_abs": {"logits": 1e-6}, "validation": {"skipped": "no data were named"}},
        "calibration": CALIBRATION,
        "versions": [2, 3],
        "weights": "float16",
        "bytes": 28_340_000,
    }
    (repository / "manifest.json").write_text(json.dumps(manifest))
    scores = tmp_path / "metrics.json"
    scores.write_text(json.dumps(SCORES))
    return repository, scores


def test_a_split_that_was_calibrated_on_is_named(files, tmp_path):
    repository, scores = files
    warning = "fitted to these very images"
    assert warning not in write_card(*files, tmp_path / "out")[0].read_text()
    manifest = json.loads((repository / "manifest.json").read_text())
    manifest["calibration"]["data"] = SCORES["data"]
    (repository / "manifest.json").write_text(json.dumps(manifest))
    assert warning in write_card(*files, tmp_path / "out")[0].read_text()
    scores.write_text(json.dumps({**SCORES, "split": "test"}))
    assert warning not in write_card(*files, tmp_path / "out")[0].read_text()


@pytest.mark.parametrize(
    ("leakage", "sentence"),
    [
        (None, ""),
        ([], "No two pictures in different splits were found to show the same."),
        (
            [{"relation": "is the same file as"}] * 4,
            "Pairs of pictures in different splits that show the same: 4, which",
        ),
    ],
)
def test_pictures_that_several_splits_hold_are_told(files, tmp_path, leakage, sentence):
    repository, _ = files
    fingerprint = json.dumps({"name": "isic2017"} if leakage is None else {"leakage": leakage})
    (repository / "fingerprint.json").write_text(fingerprint)
    manifest = json.loads((repository / "manifest.json").read_text())
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()
    (repository / "manifest.json").write_text(json.dumps({**manifest, "files": {"fingerprint.json": digest}}))
    text = write_card(*files, tmp_path / "out")[0].read_text()
    assert sentence in text
    assert ("different splits" in text) == (leakage is not None)


def test_every_figure_of_the_documents_is_there(files, tmp_path):
    card, claim = write_card(*files, tmp_path / "out", paper=True, compare={"seed 2": files[1]}, about=ABOUT)
    text = card.read_text()
    assert (
        "| this model | 77.2 (70.0 to 80.0) | 80.1 (77.1 to 82.3) | +2.9 (-0.1 to 5.0) | 94.3 (91.0 to 97.0) |" in text
    )
    assert "| paper, Xception, 3,320 image labels | 78.9 | 80.0 | +1.1 | 97.0 |" in text
    assert "| seed 2 | 77.2" in text
    assert "| seborrheic keratosis | – | – | – | – |" in text
    assert "| before (temperature 1.00) | 0.123 | 0.900 | 0.400 |" in text
    assert "| after (temperature 1.62) | 0.046 | 0.700 | 0.300 |" in text
    assert "| class | max probability | 0.150 | 0.200 | 0.100 | 0.50 |" in text
    assert "| noise | 10 | 98.7 | 4 % |" in text
    assert "| hair: with | 7 | 61.0 (50.0 to 70.0) | – | – |" in text
    assert "| coarse | 16 (best: 12) | JA 0.770 | 30 min | tf_efficientnet_lite0 from weights.pth |" in text
    assert "error 0.032, NLL 0.600, Brier 0.300, gain of the mask doubt 0.67, 5 % of the images unfamiliar." in text
    assert "Not a medical device" in text
    assert "150 images, 150 with a mask, 149 with a diagnosis" in text
    assert "--split validation" in text
    assert "Scores were not compared: no data were named." in text
    assert "All files (versions 2, 3) together: 28.3 MB; weights stored as float16." in text
    rows = [line for line in claim.read_text().splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [str(n) for n in range(1, 45)]
    assert "the epoch was chosen on this split too" in claim.read_text()


def test_taken_over_and_averaged_networks_name_their_sources(files, tmp_path):
    repository, scores = files
    source = {"best": {"mean_AUC": 0.93}, "best_epoch": 6}
    averaged = [
        {"run": "a", **source, "other_settings": {}},
        {"run": "b", **source, "other_settings": {"seed": 2, "mask.learning_rate": 2e-4}},
    ]
    mean = {**STAGE, "score": "mean_AUC", "best": {"mean_AUC": 0.94}, "averaged": averaged}
    taken = {**STAGE, "adopted": {"version": 3, "run": "older"}}
    manifest = json.loads((repository / "manifest.json").read_text())
    provenance = {**manifest["provenance"], "stages": {"coarse": taken, "mask": mean}}
    calibration = {**CALIBRATION, "views": 4}
    document = {**manifest, "provenance": provenance, "calibration": calibration}
    (repository / "manifest.json").write_text(json.dumps(document))
    text = write_card(repository, scores, tmp_path / "out")[0].read_text()
    assert "| mask | 16, of 2 trainings together | mean_AUC 0.940 | 30 min |" in text
    assert "Stage coarse is that of version 3 of the repository of run older (`mbdcnn adopt`)." in text
    assert "a (mean_AUC 0.930); b (mean_AUC 0.930; seed 2, mask.learning_rate 0.0002)" in text
    assert "the image, its two mirror images and the image turned by half" in text


def test_the_training_settings_are_those_of_the_run(files, tmp_path):
    run = tmp_path / "run"
    common = [f"network.weights={tmp_path}/imagenet.pth", "engine.ema_decay=0.998", "engine.warmup_steps=125"]
    common += ["network.drop_path=0.1", "bootstrap.start_run=older"]
    own = {
        "coarse": ["coarse.epochs=16"],
        "mask": ["mask.epochs=9", "mask.label_smoothing=0.1"],
        "enhanced": ["loss.lambda_rank=0"],
    }
    for stage in STAGES:
        (run / stage).mkdir(parents=True)
        configuration.save(override(compact(), common + own[stage]), run / stage / runs.CONFIG)
        (run / stage / runs.WEIGHTS).touch()
        runs.write_json(run / stage / runs.METRICS, {"score": "JA", **STAGE})
    provenance = runs.provenance(run)
    assert provenance["stages"]["mask"]["settings"]["network.weights"] == "imagenet.pth"
    assert "coarse.epochs" not in provenance["stages"]["mask"]["settings"]

    repository, scores = files
    manifest = json.loads((repository / "manifest.json").read_text())
    (repository / "manifest.json").write_text(json.dumps({**manifest, "provenance": provenance}))
    text = write_card(repository, scores, tmp_path / "out")[0].read_text()
    assert "| setting | coarse | mask | enhanced |" in text
    assert "| fine-tuned from run | older | older | older |" in text
    assert "| encoder | tf_efficientnet_lite0 | tf_efficientnet_lite0 | tf_efficientnet_lite0 |" in text
    assert "| input, pixels | 224 x 224 | 224 x 224 | 224 x 224 |" in text
    assert "| epochs, at most | 16 | 9 | 9 |" in text
    assert "| images a step | 16 | 16 | 16 |" in text
    rates = [f"{rate}, cosine, 125 steps of warm-up" for rate in ("0.0005", "0.0003", "0.0003")]
    assert f"| learning rate | {' | '.join(rates)} |" in text
    entropy = "cross-entropy, labels smoothed by 0.1, classes drawn equally often"
    assert f"| loss | Dice + 0.05 rank (K 30, margin 0.3) | {entropy} | Dice |" in text
    assert "| stochastic depth | 0.1 | 0.1 | 0.1 |" in text
    assert "| EMA of the weights | 0.998 | 0.998 | 0.998 |" in text
    assert "| weight decay | 0.01 | 0.01 | 0.01 |" in text
    assert "Augmentation, all stages: central crop of 0.5 to 1 of each side (probability 0.5), rotation to 20" in text
    assert "by up to 20%, 20%, 20% and 8 degrees" in text
    assert str(tmp_path) not in text


def test_the_head_is_hugging_faces(files, tmp_path):
    card, _ = write_card(*files, tmp_path / "out", about=ABOUT)
    head = yaml.safe_load(card.read_text().split("---")[1])
    assert head["license"] == "other"
    assert head["library_name"] == "mbdcnn"
    (found,) = head["model-index"]
    assert {m["type"]: m["value"] for r in found["results"] for m in r["metrics"]} == {
        "mean_iou": 0.8012,
        "roc_auc": 0.9431,
    }
    assert {r["dataset"]["name"] for r in found["results"]} == {"isic2017"}


def test_what_is_not_known_is_said(files, tmp_path):
    repository, scores = files
    manifest = json.loads((repository / "manifest.json").read_text())
    (repository / "manifest.json").write_text(json.dumps({**manifest, "calibration": None, "provenance": {"run": "x"}}))
    bare = {**SCORES, "coarse": None, "enhanced": None, "classification": None}
    kept = bare.keys() - {"intervals", "trust", "subgroups", "data"}
    scores.write_text(json.dumps({key: bare[key] for key in kept}))
    card, claim = write_card(repository, scores, tmp_path / "out")
    text = card.read_text()
    assert "Not calibrated" in text
    assert "| this model | – | – | – | – |" in text
    assert "Not measured." in text
    assert NOT_STATED in text
    assert NOT_STATED in claim.read_text()


def test_the_checklist_has_an_answer_to_each_item(files):
    manifest = json.loads((files[0] / "manifest.json").read_text())
    answers = _claim._answers(manifest, SCORES, read_about(ABOUT))
    assert len(answers) == len(_claim._ITEMS) == 44
    assert all(answer.strip() for answer in answers)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("licens: MIT", "no field licens; did you mean licence"),
        ("- a\n- b", "no list of fields and texts"),
        ("data: 3", "no list of fields and texts"),
        ("a: [", "it is no YAML"),
    ],
)
def test_bad_words_about_the_data_are_one_sentence(text, sentence, tmp_path):
    (tmp_path / "about.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_about(tmp_path / "about.yaml")


def test_the_command(files, tmp_path):
    repository, scores = files
    words = ["card", "--repository", repository, "--scores", scores, "--out", tmp_path / "out", "--json"]
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert [Path(file).name for file in json.loads(done.stdout)] == ["MODEL_CARD.md", "CLAIM.md"]
    done = CliRunner().invoke(cli, [str(word) for word in (*words, "--compare", "seed")])
    assert "write --compare NAME=metrics.json" in str(done.exception)
    scores.write_text("[]")
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert "is no metrics.json" in str(done.exception)
