"""Evaluations of networks that tell other classes apart: JSON, CSV and page."""

import base64
import csv
import re
import warnings
from html import escape
from pathlib import Path

import numpy as np
import pytest

from mbdcnn.metrics import SegmentationScores
from train._report_charts import roc_curves
from train._report_rows import Row, summarise, write_csv
from train.report import write_report

TWO = ("benign", "malignant")


def row(image_id: str, classes: tuple[str, ...], label: str | None, said: str) -> Row:
    probabilities = np.full(len(classes), 0.2 / (len(classes) - 1))
    probabilities[classes.index(said)] = 0.8
    scores = SegmentationScores(0.8, 0.9, 0.9, 0.8, 0.9)
    return Row(image_id, label, True, probabilities, scores, scores, classes)


def page(path: Path, rows: list[Row]) -> str:
    write_report(path, summarise(rows, protocol="single", split="test"), rows, {})
    return path.read_text(encoding="utf-8")


def test_of_two_classes_the_second_is_scored() -> None:
    rows = [row("a", TWO, "benign", "benign"), row("b", TWO, "malignant", "malignant"), row("c", TWO, None, "benign")]
    perfect = {"AUC": 1.0, "AC": 1.0, "SE": 1.0, "SP": 1.0}
    result = summarise(rows, protocol="single", split="test")
    assert result["classification"] == {"malignant": perfect, "mean_AUC": 1.0}
    assert result["n_labels"] == 2
    assert "n_unknown_labels" not in result


def test_labels_that_the_networks_do_not_know_are_counted_and_not_scored() -> None:
    known = [row("a", TWO, "benign", "benign"), row("b", TWO, "malignant", "malignant")]
    rows = [*known, row("c", TWO, "odd", "benign"), row("d", TWO, "nevus", "malignant")]
    result = summarise(rows, protocol="single", split="test")
    assert (result["n_images"], result["n_masks"], result["n_labels"], result["n_unknown_labels"]) == (4, 4, 2, 2)
    assert result["classification"] == summarise(known, protocol="single", split="test")["classification"]
    assert not any(r.is_misclassified for r in rows)


def test_without_mask_cn_no_label_is_unknown() -> None:
    rows = [Row("a", "odd", True, None, None, None)]
    result = summarise(rows, protocol="single", split="test")
    assert (result["n_labels"], result["classification"]) == (1, None)
    assert "n_unknown_labels" not in result


def test_the_table_has_a_column_for_each_class(tmp_path: Path) -> None:
    classes = ("a, b", 'say "c"', "d;é")
    write_csv([row("x", classes, "odd", classes[1])], tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["label"], line["predicted"]) == ("odd", classes[1])
    assert [float(line[name]) for name in classes] == pytest.approx([0.1, 0.8, 0.1])


def test_the_page_names_the_classes(tmp_path: Path) -> None:
    rows = [row("a", TWO, "benign", "benign"), row("b", TWO, "malignant", "benign"), row("c", TWO, "odd", "benign")]
    text = page(tmp_path / "r.html", rows)
    assert "2 with a diagnosis, 1 with one that the networks do not know." in text
    assert "of malignant</span>" in text
    assert "<td>malignant</td><td>1</td><td>50.0<" in text
    assert "melanoma" not in text
    assert re.search(r'<tr><td>malignant</td><td class="wrong">1</td><td class="right">0</td></tr>', text)


def test_names_of_all_kinds_are_shown_as_they_are(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "a$b$", "$\\frac{", "_hidden", 'quo"te', "病変")
    rows = [row(f"{n}", classes, name, name) for n, name in enumerate(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = page(tmp_path / "r.html", rows)
    assert "<script" not in text
    chart = re.search(r'src="data:image/svg\+xml;base64,([^"]*)" alt="ROC', text)
    assert chart
    assert "病変, AUC 100.0" in base64.b64decode(chart[1]).decode()
    for name in classes:
        assert escape(name.replace("_", " ")) in text


def test_many_classes_have_a_curve_each() -> None:
    classes = tuple(f"class {n}" for n in range(12))
    rows = [row(f"{n}", classes, classes[n], classes[n]) for n in range(12)]
    assert roc_curves(rows)
    result = summarise(rows, protocol="single", split="test")["classification"]
    assert list(result) == [*classes, "mean_AUC"]
    assert result["mean_AUC"] == 1.0
