import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score, roc_auc_score
from torch import nn

from mbdcnn.config import NetworkConfig
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap, Prediction
from mbdcnn.preprocessing import Preprocessing, decode_image, decode_mask, prepare, restore
from train import evaluate as module
from train.evaluate import evaluate

SPEC = Preprocessing(image_size=64)
COLOURS = {"nevus": (230, 170, 160), "melanoma": (170, 230, 160), "seborrheic_keratosis": (170, 160, 230)}
MEASURES = ("JA", "DI", "AC", "SE", "SP")


class ByColour(nn.Module):
    """Networks that need no training: a lesion is what is dark, a class is the colour of the skin."""

    def __init__(self):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(6.0))
        self.norm = nn.BatchNorm2d(3)
        self.calls = []

    def forward(self, images):
        self.calls.append((tuple(images.shape), images.dtype, self.training))
        dark = -images.mean(1, keepdim=True)
        enhanced = torch.sigmoid(self.sharpness * dark)
        coarse = torch.roll(enhanced, 5, dims=3)
        logits = 3 * images.mean((2, 3))
        return Prediction(
            coarse_probability=coarse,
            coarse_mask=(coarse > 0.5).float(),
            logits=logits,
            probabilities=logits.softmax(1),
            cam=torch.nn.functional.avg_pool2d(enhanced, 16),
            lesion_probability=enhanced,
        )


def draw(root, name, colour, size, lesion, *, mask=True, mask_size=None):
    """One image with a dark box for a lesion, and its mask; returns their paths below the root."""
    width, height = size
    pixels = np.full((height, width, 3), colour, np.uint8)
    left, top, right, bottom = (round(f * n) for f, n in zip(lesion, (width, height) * 2, strict=True))
    pixels[top:bottom, left:right] = 40
    Image.fromarray(pixels).save(root / f"{name}.png")
    if not mask:
        return f"{name}.png", None
    truth = np.zeros((height, width), np.uint8)
    truth[top:bottom, left:right] = 255
    Image.fromarray(truth).resize(mask_size or size, Image.Resampling.NEAREST).save(root / f"{name}_mask.png")
    return f"{name}.png", f"{name}_mask.png"


def item(image_id, image, mask, label, size, split="validation"):
    return Item(image_id, split, image, mask, label, *size, sha256=image_id, mask_sha256=mask)


@pytest.fixture
def data(tmp_path) -> Manifest:
    """Seven images of several sizes; one lacks its mask, one its label, one looks like another class."""
    root = tmp_path / "data"
    root.mkdir()
    plan = [
        ("a", "nevus", "nevus", (96, 64), {}),
        ("b", "melanoma", "melanoma", (64, 96), {}),
        ("c", "seborrheic_keratosis", "seborrheic_keratosis", (200, 150), {}),
        ("d", "melanoma", "nevus", (120, 120), {}),  # shown as a nevus
        ("e", "nevus", "nevus", (80, 60), {"mask": False}),
        ("f", None, "melanoma", (150, 100), {}),
        ("g", "seborrheic_keratosis", "seborrheic_keratosis", (100, 100), {"mask_size": (50, 40)}),
    ]
    items = []
    for position, (name, label, looks, size, extra) in enumerate(plan):
        box = (0.2 + 0.03 * position, 0.25, 0.6 + 0.03 * position, 0.7)
        items.append(item(name, *draw(root, name, COLOURS[looks], size, box, **extra), label, size))
    return Manifest(root, tuple(items))


def expected(data, network):
    """The contract's document, computed one image at a time with scikit-learn."""
    network.eval()
    segmentation, probabilities, labels = {"coarse": [], "enhanced": []}, [], []
    for entry in data.items:
        image = decode_image(data.read(entry.image))
        with torch.inference_mode():
            answer = network(torch.from_numpy(prepare(image, SPEC))[None])
        if entry.label is not None:
            probabilities.append(answer.probabilities[0].numpy())
            labels.append(data.classes.index(entry.label))
        if entry.mask is not None:
            truth = decode_mask(data.read(entry.mask))
            for name, plane in (
                ("coarse", answer.coarse_probability),
                ("enhanced", answer.lesion_probability),
            ):
                y, p = truth.ravel(), (restore(plane[0, 0].numpy(), *truth.shape) > 0.5).ravel()
                segmentation[name].append(
                    (
                        jaccard_score(y, p),
                        f1_score(y, p),
                        accuracy_score(y, p),
                        recall_score(y, p),
                        recall_score(~y, ~p),
                    )
                )
    probabilities, labels = np.array(probabilities), np.array(labels)
    document = {
        name: dict(zip(MEASURES, np.mean(scores, axis=0), strict=True)) for name, scores in segmentation.items()
    }
    classes = {}
    for index, name in ((1, "melanoma"), (2, "seborrheic_keratosis")):
        y, p = labels == index, probabilities.argmax(1) == index
        classes[name] = {
            "AUC": roc_auc_score(y, probabilities[:, index]),
            "AC": accuracy_score(y, p),
            "SE": recall_score(y, p),
            "SP": recall_score(~y, ~p),
        }
    return document, classes, segmentation


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_equal_an_independent_count(data, tmp_path, batch_size):
    network = ByColour()
    segmentation, classes, _ = expected(data, network)
    result = evaluate(network, data, "validation", tmp_path / "out", SPEC, batch_size)
    assert list(result) == [
        "protocol", "split", "n_images", "n_masks", "n_labels", "coarse", "enhanced", "classification",
        "intervals", "trust", "subgroups", "data",
    ]  # fmt: skip
    assert (result["protocol"], result["split"]) == ("single", "validation")
    assert (result["n_images"], result["n_masks"], result["n_labels"]) == (7, 6, 6)
    for name in ("coarse", "enhanced"):
        assert list(result[name]) == list(MEASURES)
        assert result[name] == pytest.approx(segmentation[name], abs=1e-6)
    assert result["enhanced"]["JA"] > 0.9 > result["coarse"]["JA"]
    for name in ("melanoma", "seborrheic_keratosis"):
        assert result["classification"][name] == pytest.approx(classes[name])
    assert result["classification"]["melanoma"]["SE"] == 0.5  # one of two is drawn as a nevus
    assert result["classification"]["mean_AUC"] == pytest.approx(
        (classes["melanoma"]["AUC"] + classes["seborrheic_keratosis"]["AUC"]) / 2
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    shapes = [shape for shape, _, _ in network.calls[7:]]
    assert all(shape[1:] == (3, 64, 64) and shape[0] <= batch_size for shape in shapes)


def test_csv_has_every_image(data, tmp_path):
    network = ByColour()
    _, _, scores = expected(data, network)
    evaluate(network, data, "validation", tmp_path, SPEC, batch_size=2)
    with (tmp_path / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["image_id"] for line in lines] == list("abcdefg")
    assert list(lines[0]) == [
        "image_id", "label", "predicted", "nevus", "melanoma", "seborrheic_keratosis",
        *(f"coarse_{m}" for m in MEASURES), *(f"enhanced_{m}" for m in MEASURES),
    ]  # fmt: skip
    by_id = {line["image_id"]: line for line in lines}
    assert (by_id["d"]["label"], by_id["d"]["predicted"]) == ("melanoma", "nevus")
    assert by_id["e"]["enhanced_JA"] == ""
    assert by_id["f"]["label"] == ""
    assert float(by_id["g"]["enhanced_JA"]) == pytest.approx(scores["enhanced"][5][0], abs=1e-6)
    assert float(by_id["c"]["coarse_SP"]) == pytest.approx(scores["coarse"][2][4], abs=1e-6)
    for line in lines:
        assert sum(float(line[c]) for c in COLOURS) == pytest.approx(1, abs=1e-5)


def test_the_report_shows_the_scores_and_the_mistake(data, tmp_path):
    result = evaluate(ByColour(), data, "validation", tmp_path, SPEC, title="run <7>")
    page = (tmp_path / "report.html").read_text()
    assert "run &lt;7&gt;" in page
    assert f"<b>{100 * result['enhanced']['JA']:.1f}</b>" in page
    assert "melanoma taken for nevus" in page
    assert data.fingerprint[:12] in page
    assert str(tmp_path) not in page


def test_a_split_without_masks_or_labels(data, tmp_path):
    bare = [Item(**{**vars(i), "mask": None, "mask_sha256": None}) for i in data.items]
    result = evaluate(ByColour(), Manifest(data.root, tuple(bare)), "validation", tmp_path / "m", SPEC)
    assert (result["n_masks"], result["coarse"], result["enhanced"]) == (0, None, None)
    assert result["classification"]["melanoma"] is not None

    nameless = [Item(**{**vars(i), "label": None}) for i in data.items]
    result = evaluate(ByColour(), Manifest(data.root, tuple(nameless)), "validation", tmp_path / "l", SPEC)
    assert result["n_labels"] == 0
    assert result["classification"] == {"melanoma": None, "seborrheic_keratosis": None, "mean_AUC": None}
    assert result["enhanced"]["JA"] > 0.9


@pytest.mark.parametrize(
    ("absent", "null", "masks"),
    [
        ({"probabilities", "cam", "lesion_probability"}, {"enhanced", "classification"}, ["coarse"]),
        ({"coarse_probability", "lesion_probability"}, {"coarse", "enhanced"}, []),
        ({"coarse_probability"}, {"coarse"}, ["enhanced"]),
    ],
)
def test_what_a_run_lacks_is_null_and_the_rest_is_scored_as_ever(data, tmp_path, absent, null, masks):
    network = ByColour().eval()
    full = evaluate(network, data, "validation", tmp_path / "full", SPEC)

    def predict(images):
        return network(images)._replace(**dict.fromkeys(absent))

    result = evaluate(predict, data, "validation", tmp_path, SPEC, batch_size=2)
    spread = {**full["intervals"], **dict.fromkeys(null)}
    if null & {"coarse", "enhanced"}:
        spread["enhanced_minus_coarse"] = None
    parts, trust = result.pop("subgroups"), result.pop("trust")
    assert (trust["calibration"] is None) == (trust["class_doubt"] is None) == ("classification" in null)
    assert trust["mask_doubt"] is trust["unfamiliar"] is None  # these networks do not say
    assert (parts["class"]["nevus"]["JA"] is None) == ({"coarse", "enhanced"} <= null)
    assert (parts["class"]["nevus"]["accuracy"] is None) == ("classification" in null)
    del full["subgroups"], full["trust"]
    assert result == {**full, **dict.fromkeys(null), "intervals": spread}
    with (tmp_path / "per_image.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    for name in ("coarse", "enhanced"):
        assert bool(first[f"{name}_JA"]) == (name in masks)
    assert bool(first["predicted"]) == bool(first["nevus"]) == ("classification" not in null)
    page = (tmp_path / "report.html").read_text()
    assert ("Enhanced mask" in page) == ("enhanced" in masks)
    assert ("Wrong diagnoses" in page) == ("classification" not in null)


def test_a_class_that_the_split_lacks_is_null(data, tmp_path):
    kept = tuple(i for i in data.items if i.label != "seborrheic_keratosis")
    scores = evaluate(ByColour(), Manifest(data.root, kept), "validation", tmp_path, SPEC)["classification"]
    assert scores["seborrheic_keratosis"] is None
    assert scores["mean_AUC"] is None
    assert scores["melanoma"]["AC"] == pytest.approx(3 / 4)


def test_only_the_asked_split_counts(data, tmp_path):
    moved = tuple(Item(**{**vars(i), "split": "test" if i.image_id < "c" else "training"}) for i in data.items)
    assert evaluate(ByColour(), Manifest(data.root, moved), "test", tmp_path, SPEC)["n_images"] == 2


def test_a_module_is_left_in_the_mode_it_came_in(data, tmp_path):
    network = ByColour().train()
    network.norm.eval()  # a frozen part
    evaluate(network, data, "validation", tmp_path, SPEC)
    assert not any(training for _, _, training in network.calls)
    assert network.training
    assert not network.norm.training


def test_any_callable_will_do(data, tmp_path):
    network = ByColour().eval()
    served = evaluate(lambda images: network(images), data, "validation", tmp_path, SPEC)
    assert served == evaluate(network, data, "validation", tmp_path, SPEC)


def test_half_precision_answers(data, tmp_path):
    network = ByColour().eval()

    def predict(images):
        return Prediction(*(None if tensor is None else tensor.bfloat16() for tensor in network(images)))

    exact = evaluate(network, data, "validation", tmp_path, SPEC)
    assert evaluate(predict, data, "validation", tmp_path, SPEC)["enhanced"]["JA"] == pytest.approx(
        exact["enhanced"]["JA"], abs=0.02
    )


def test_progress_goes_to_standard_error(data, tmp_path, capsys):
    evaluate(ByColour(), data, "validation", tmp_path, SPEC, progress=True)
    shown = capsys.readouterr()
    assert "evaluate validation" in shown.err
    assert "7/7" in shown.err
    assert shown.out == ""
    evaluate(ByColour(), data, "validation", tmp_path, SPEC)
    assert capsys.readouterr() == ("", "")


def test_memory_does_not_grow_with_the_split(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_DECODERS", 1)
    paths = draw(tmp_path, "big", COLOURS["nevus"], (1000, 700), (0.3, 0.3, 0.6, 0.6))

    def peak(count):
        items = tuple(item(f"i{n}", *paths, "nevus", (1000, 700)) for n in range(count))
        tracemalloc.start()
        evaluate(ByColour(), Manifest(tmp_path, items), "validation", tmp_path / "out", SPEC, batch_size=4)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    full_size = 1000 * 700 * 3
    peak(1)  # imports and caches
    # From 12 images on the report shows 12, whatever the split's length.
    assert peak(30) < peak(12) + 3 * full_size


def test_both_protocols_of_real_networks(data, tmp_path):
    torch.manual_seed(1)
    config = NetworkConfig("resnet10t", "resnet10t", weights="none", decoder_channels=16)
    parts, spec = MutualBootstrap(CoarseSN(config), MaskCN(config), EnhancedSN(config)), Preprocessing(image_size=32)
    data = Manifest(data.root, data.items[:3])  # one of each class
    one = evaluate(parts, data, "validation", tmp_path / "single", spec)
    many = evaluate(parts, data, "validation", tmp_path / "authors", spec, batch_size=4, protocol="authors")
    assert list(many) == list(one)
    assert (one["protocol"], many["protocol"]) == ("single", "authors")
    counts = ("n_images", "n_masks", "n_labels")
    assert [many[name] for name in counts] == [one[name] for name in counts]
    for result in (one, many):
        assert all(0 <= value <= 1 for name in ("coarse", "enhanced") for value in result[name].values())
        assert 0 <= result["classification"]["mean_AUC"] <= 1
    assert many != one
    assert "<code>authors</code>" in (tmp_path / "authors" / "report.html").read_text()
    assert parts.training  # as it came


def test_an_unknown_protocol_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="no protocol autors"):
        evaluate(ByColour(), data, "validation", tmp_path, SPEC, protocol="autors")


def test_an_empty_split_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"data has no images of the split 'test'; it has validation\."):
        evaluate(ByColour(), data, "test", tmp_path, SPEC)
    with pytest.raises(UserError, match=r"no images of the split 'test'\.$"):
        evaluate(ByColour(), Manifest(data.root, ()), "test", tmp_path, SPEC)


def test_a_file_that_is_gone_is_named_before_any_work(data, tmp_path):
    (data.root / "g_mask.png").unlink()
    network = ByColour()
    with pytest.raises(UserError, match=r"g_mask\.png is gone; run `mbdcnn data index`"):
        evaluate(network, data, "validation", tmp_path, SPEC)
    assert network.calls == []


@pytest.mark.parametrize("name", ["c.png", "c_mask.png"])
def test_a_file_that_no_longer_decodes_is_named(data, tmp_path, name):
    whole = (data.root / name).read_bytes()
    (data.root / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{name}: the (image|mask) is damaged or truncated"):
        evaluate(ByColour(), data, "validation", tmp_path, SPEC, batch_size=2)


@pytest.mark.parametrize("part", ["probabilities", "coarse_probability", "lesion_probability"])
def test_an_answer_that_is_not_a_number_is_an_error(data, tmp_path, part):
    network = ByColour().eval()

    def predict(images):
        answer = network(images)
        return answer._replace(**{part: getattr(answer, part) * float("nan")})

    with pytest.raises(UserError, match=r"answer to a\.png is not a number"):
        evaluate(predict, data, "validation", tmp_path, SPEC)
    assert not Path(tmp_path / "metrics.json").exists()


def test_a_batch_of_none_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="batch_size"):
        evaluate(ByColour(), data, "validation", tmp_path, SPEC, batch_size=0)
