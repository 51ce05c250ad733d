import base64
import json
import re
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import SegmentationScores
from mbdcnn.preprocessing import restore
from train._report_cases import Case, choose, panels
from train._report_charts import jaccard_histogram, roc_curves, training_curves
from train._report_rows import Row, summarise
from train.report import write_report


def row(image_id, ja=None, label="nevus", said="nevus", sure=0.8):
    probabilities = np.full(3, (1 - sure) / 2)
    probabilities[CLASSES.index(said)] = sure
    scores = None if ja is None else SegmentationScores(ja, 2 * ja / (1 + ja), 0.9, 0.8, 0.95)
    coarse = None if ja is None else SegmentationScores(ja / 2, 0.5, 0.8, 0.7, 0.9)
    return Row(image_id, label, ja is not None, probabilities, coarse, scores)


def case(image_id, *, truth=True, coarse=True, enhanced=True, cam=True, height=120, width=200):
    mask = np.zeros((height, width), bool)
    mask[30:90, 50:150] = True
    small = np.zeros((32, 32), np.float32)
    small[8:24, 8:24] = 1
    image = np.full((height, width, 3), 180, np.uint8)
    lesion = partial(restore, small)
    return Case.reduced(
        image_id,
        image,
        mask if truth else None,
        lesion if coarse else None,
        lesion if enhanced else None,
        np.eye(4, dtype=np.float32) if cam else None,
    )


def write(path, rows, cases=(), **options):
    result = summarise(rows, protocol="single", split="validation")
    write_report(path, result, rows, {"best": list(cases)}, **options)
    return path.read_text(encoding="utf-8")


def svg(uri):
    assert uri.startswith("data:image/svg+xml;base64,")
    return base64.b64decode(uri.split(",")[1]).decode()


def numbers(path):
    return np.array([[float(v) for v in point.split(",")] for point in re.findall(r"[\d.]+,[\d.]+", path)])


class TestChoice:
    def test_best_median_worst(self):
        rows = [row(f"i{n:02}", ja=n / 20) for n in range(20)]
        chosen = choose(rows)
        assert chosen["best"] == ["i19", "i18", "i17", "i16"]
        assert chosen["worst"] == ["i00", "i01", "i02", "i03"]
        assert chosen["median"] == ["i11", "i10", "i09", "i08"]
        assert chosen["misclassified"] == []

    @pytest.mark.parametrize("count", range(1, 14))
    def test_no_image_twice(self, count):
        chosen = choose([row(f"i{n}", ja=n / 20) for n in range(count)])
        shown = chosen["best"] + chosen["median"] + chosen["worst"]
        assert len(shown) == len(set(shown)) == min(count, 3 * max(1, count // 3))
        assert chosen["best"][0] == f"i{count - 1}"
        assert count == 1 or chosen["worst"][0] == "i0"

    def test_wrong_diagnoses_the_surest_first(self):
        rows = [row(f"m{n}", label="melanoma", said="nevus", sure=0.5 + n / 40) for n in range(10)]
        rows += [row("right"), row("unlabelled", label=None, sure=0.99)]
        chosen = choose(rows)
        assert chosen["misclassified"] == [f"m{n}" for n in range(9, 1, -1)]
        assert chosen["best"] == []


class TestPictures:
    def test_reduction_keeps_the_aspect_and_the_lesion(self):
        big = case("x", height=1200, width=2000)
        assert (big.width, big.height) == (2000, 1200)
        assert big.image.shape == (192, 320, 3)
        assert big.truth.shape == big.coarse.shape == big.enhanced.shape == big.cam.shape == (192, 320)
        assert big.truth.mean() == pytest.approx(60 * 100 / (1200 * 2000), rel=2e-2)  # 8-bit
        assert case("x").image.shape == (120, 200, 3)  # small ones are not enlarged

    def test_panels_are_svg_with_the_contours_in_place(self):
        drawn = dict(panels(case("x"), "best-0"))
        assert list(drawn) == ["Image", "Truth", "Coarse mask", "CAM", "Enhanced mask"]
        roots = {name: ElementTree.fromstring(text) for name, text in drawn.items()}
        assert {root.get("viewBox") for root in roots.values()} == {"0 0 200 120"}
        (truth,) = [p for p in roots["Truth"].iter("path") if p.get("class") == "truth"]
        points = numbers(truth.get("d"))
        assert points.min(0) == pytest.approx([50, 30], abs=0.6)
        assert points.max(0) == pytest.approx([150, 90], abs=0.6)
        assert [p.get("class") for p in roots["Enhanced mask"].iter("path")] == [
            "halo", "halo", "truth", "enhanced",
        ]  # fmt: skip
        (found,) = [p for p in roots["Enhanced mask"].iter("path") if p.get("class") == "enhanced"]
        assert numbers(found.get("d")).min(0) == pytest.approx([50, 30], abs=3)

    def test_a_lesion_that_leaves_the_frame_is_closed(self):
        image, mask = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), bool)
        mask[:20, :30] = True
        plane = np.ones((8, 8), np.float32)
        lesion = partial(restore, plane)
        drawn = dict(panels(Case.reduced("x", image, mask, lesion, lesion, plane), "k"))
        path = next(ElementTree.fromstring(drawn["Truth"]).iter("path")).get("d")
        assert path.count("M") == 1
        assert path.endswith("Z")
        assert numbers(path).min(0).tolist() == [0, 0]
        assert numbers(path).max(0) == pytest.approx([30, 20], abs=0.6)

    def test_without_truth_and_with_an_unusable_map(self):
        bare = case("x", truth=False)
        drawn = dict(panels(bare, "k"))
        assert "no truth" in drawn["Truth"]
        assert 'class="truth"' not in "".join(drawn.values())
        image = np.zeros((9, 9, 3), np.uint8)
        strange = Case.reduced("x", image, None, None, None, np.full((2, 2), np.nan, np.float32))
        assert strange.cam.max() == 0

    def test_panels_of_the_networks_that_are_there(self):
        for absent, left in (
            ({"enhanced": False, "cam": False}, ["Coarse mask"]),
            ({"coarse": False}, ["CAM", "Enhanced mask"]),
            ({"coarse": False, "enhanced": False}, ["CAM"]),
        ):
            assert [name for name, _ in panels(case("x", **absent), "k")] == ["Image", "Truth", *left]


class TestCharts:
    def test_histogram_tells_both_means(self):
        text = svg(jaccard_histogram([row("a", ja=0.9), row("b", ja=0.5), row("c")]))
        ElementTree.fromstring(text)
        assert "enhanced, mean 70.0" in text
        assert "coarse, mean 35.0" in text
        assert jaccard_histogram([row("c")]) is None

    def test_histogram_of_one_network(self):
        both = row("a", ja=0.8)
        coarse = svg(jaccard_histogram([replace(both, enhanced=None)]))
        assert "coarse, mean 40.0" in coarse
        assert "enhanced" not in coarse
        enhanced = svg(jaccard_histogram([replace(both, coarse=None)]))
        assert "enhanced, mean 80.0" in enhanced
        assert "coarse" not in enhanced

    def test_roc_of_the_classes_that_are_there(self):
        rows = [row("a"), row("b", label="melanoma", said="melanoma"), row("c", label="melanoma", sure=0.6)]
        text = svg(roc_curves(rows))
        assert "melanoma, AUC 100.0" in text
        assert "seborrheic" not in text
        assert roc_curves([row("a")]) is None
        assert roc_curves([]) is None

    def test_training_curves_tolerate_anything(self, tmp_path):
        log = tmp_path / "coarse" / "log.jsonl"
        log.parent.mkdir()
        lines = [
            json.dumps({"stage": "coarse", "epoch": n, "loss": 1 / n, "val_JA": 0.5, "seconds": 3, "note": "x"})
            for n in (1, 2, 3)
        ]
        log.write_text("\n".join([*lines, "[1, 2]", "", '{"loss": NaN, "epoch": null}', '{"cut off']))
        other = tmp_path / "mask" / "log.jsonl"
        other.parent.mkdir()
        other.write_text('{"loss": 2}\n{"loss": 1}\n')
        once = tmp_path / "once.jsonl"
        once.write_text('{"stage": "enhanced", "loss": 2}\n')
        charts = dict(training_curves([log, other, once, tmp_path / "missing.jsonl"]))
        assert list(charts) == ["coarse", "mask"]
        assert "val JA" in svg(charts["coarse"])
        assert "seconds" not in svg(charts["coarse"])
        assert training_curves([]) == []

    def test_epochs_are_drawn_rather_than_steps(self, tmp_path):
        log = tmp_path / "log.jsonl"
        rows = []
        for epoch in (1, 2):
            rows += [{"stage": "coarse", "epoch": epoch, "step": n, "learning_rate": 1, "loss": 9} for n in (1, 2)]
            rows.append({"stage": "coarse", "epoch": epoch, "loss": 1 / epoch, "dice": 0.5, "JA": 0.7, "seconds": 9})
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        ((_, chart),) = training_curves([log])
        text = svg(chart)
        assert {"loss", "dice", "JA"} <= set(re.findall(r"<!-- (\w+) -->", text))
        assert "seconds" not in text
        assert "learning rate" not in text
        ticks = [float(t) for t in re.findall(r"<!-- ([\d.]+) -->", text)]
        assert max(ticks) <= 2  # no step's loss of 9


class TestPage:
    rows = (
        row("one", ja=0.9, label="nevus"),
        row("two", ja=0.7, label="melanoma", said="melanoma"),
        row("three", ja=0.5, label="seborrheic_keratosis", said="melanoma"),
        row("four", ja=0.3, label="seborrheic_keratosis", said="seborrheic_keratosis"),
    )

    def test_figures(self, tmp_path):
        page = write(tmp_path / "r.html", self.rows, [case("one")], title="demo", fingerprint="0123456789abcdef")
        assert "<title>Evaluation: demo</title>" in page
        assert "4 images of the validation split: 4 with a mask, 4 with a diagnosis" in page
        assert "<b>60.0</b>" in page  # enhanced JA
        assert "<b>30.0</b>" in page  # coarse JA
        assert "+30.0 against the coarse one" in page
        # melanoma: AUC 100 (its 0.8 is matched by one of three others: 5/6), AC 3/4, SE 1/1, SP 2/3
        cells = ["1", "83.3", "75.0", "100.0", "66.7"]
        scores = re.sub(r'<br><span class="range">[\d.\N{MINUS SIGN}]+ to [\d.\N{MINUS SIGN}]+</span>', "", page)
        assert "<td>melanoma</td>" + "".join(f"<td>{c}</td>" for c in cells) in scores
        assert "<td>seborrheic keratosis</td><td>2</td><td>75.0</td>" in scores
        assert '<td>seborrheic keratosis</td><td class="">0</td><td class="wrong">1</td>' in page
        assert "0123456789ab<" in page
        assert "JA coarse 45.0 → enhanced 90.0" in page
        assert "width:80.0%" in page

    def test_stands_alone(self, tmp_path):
        page = write(tmp_path / "r.html", self.rows, [case("one")])
        assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
        assert "http" not in page
        for source in re.findall(r'(?:src|href)="([^"]*)"', page):
            assert source.startswith(("data:image/", "#"))
        assert "<script" not in page

    def test_references_are_unique_and_met(self, tmp_path):
        result = summarise(self.rows, protocol="single", split="validation")
        shown = {"best": [case("one"), case("two")], "misclassified": [case("three")]}
        write_report(tmp_path / "r.html", result, self.rows, shown)
        page = (tmp_path / "r.html").read_text()
        defined = re.findall(r' id="([^"]*)"', page)
        assert len(defined) == len(set(defined)) == 3
        assert set(re.findall(r'href="#([^"]*)"', page)) == set(defined)
        assert "seborrheic keratosis taken for melanoma" in page
        assert "Worst masks" not in page  # an empty gallery is left out

    def test_names_are_escaped(self, tmp_path):
        name = '<script>alert("1")</script>'
        page = write(tmp_path / "r.html", [row(name, ja=0.5)], [case(name)], title=name)
        assert "<script" not in page
        assert "&lt;script&gt;" in page

    def test_without_masks_and_labels(self, tmp_path):
        page = write(tmp_path / "r.html", [row("a", label=None)], [case("a", truth=False)])
        assert "1 image of the validation split: 0 with a mask, 0 with a diagnosis" in page
        assert re.findall(r"<b>(.*?)</b>", page) == ["–"]  # mean AUC
        assert "needs images of every class" in page
        assert "<h3>Segmentation</h3>" not in page
        assert "ROC curves" not in page
        assert "nan" not in page.replace("Decision", "").lower().split("</style>")[1].split("<figure>")[0]

    def test_coarse_network_alone(self, tmp_path):
        rows = [replace(r, probabilities=None, enhanced=None) for r in self.rows]
        page = write(tmp_path / "r.html", rows, [case("one", enhanced=False, cam=False)])
        assert "4 images of the validation split: 4 with a mask, 4 with a diagnosis" in page
        assert re.findall(r"<b>(.*?)</b>", page) == ["30.0"]
        assert "<td>coarse-SN</td>" in page
        for word in ("enhanced", "Classification", "Mean AUC", "ROC curves", "Probabilities", "Diagnoses", "CAM,"):
            assert word not in page.split("</style>")[1]
        assert "JA coarse 45.0</span>" in page
        assert choose(rows)["worst"] == ["four"]

    def test_classifier_alone(self, tmp_path):
        rows = [replace(r, coarse=None, enhanced=None) for r in self.rows]
        page = write(tmp_path / "r.html", rows, [case("one", coarse=False, enhanced=False)])
        assert "4 with a mask" in page
        assert re.findall(r"<b>(.*?)</b>", page) == ["79.2"]  # of 83.3 and 75.0
        for word in ("Segmentation", "coarse", "enhanced", "JA, image by image"):
            assert word not in page.split("</style>")[1]
        assert "<h3>Classification</h3>" in page
        assert "Probabilities" in page

    def test_without_the_coarse_network(self, tmp_path):
        page = write(tmp_path / "r.html", [replace(r, coarse=None) for r in self.rows], [case("one", coarse=False)])
        assert re.findall(r"<b>(.*?)</b>", page) == ["60.0", "79.2"]
        assert "difference" not in page
        assert "coarse" not in page.split("</style>")[1]
        assert "JA enhanced 90.0</span>" in page

    def test_the_protocol_is_told(self, tmp_path):
        assert "saw each image once" in write(tmp_path / "a.html", self.rows)
        result = summarise(self.rows, protocol="authors", split="test")
        write_report(tmp_path / "b.html", result, self.rows, {})
        page = (tmp_path / "b.html").read_text()
        assert "merged from 18 views" in page
        assert "<code>authors</code>" in page

    def test_training_section_only_with_logs(self, tmp_path):
        assert "<h2>Training</h2>" not in write(tmp_path / "a.html", self.rows)
        log = tmp_path / "log.jsonl"
        log.write_text('{"stage": "coarse", "loss": 2}\n{"stage": "coarse", "loss": 1}\n')
        assert "<h2>Training</h2>" in write(tmp_path / "b.html", self.rows, logs=[log])
