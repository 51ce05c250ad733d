"""Scores of parts of a split, and their place on the report's page."""

import numpy as np
import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import SegmentationScores
from train._report_rows import Row
from train._report_subgroups import subgroup_section
from train._subgroups import subgroups
from train._traits import Traits


def row(name, ja, label, said, share, lightness, hair=False):
    probabilities = np.full(3, 0.1)
    probabilities[CLASSES.index(said)] = 0.8
    scores = SegmentationScores(ja, 0.9, 0.9, 0.9, 0.9)
    traits = Traits(surround=False, scale=False, hair=hair, lightness=lightness)
    return Row(name, label, True, probabilities, None, scores, CLASSES, share, traits)


ROWS = [
    row("a", 0.9, "nevus", "nevus", 0.05, 50.0),
    row("b", 0.7, "melanoma", "nevus", 0.2, 30.0),
    row("c", 0.5, "melanoma", "melanoma", 0.5, None, hair=True),
    row("d", 0.3, "seborrheic_keratosis", "seborrheic_keratosis", 1.0, -60.0, hair=True),
]


def test_every_image_is_in_its_group():
    found = subgroups(ROWS)
    assert {name: [g["images"] for g in groups.values()] for name, groups in found.items()} == {
        "class": [2, 1, 1],
        "lesion size": [1, 1, 2],
        "hair": [2, 2],
        "skin": [1, 1, 1],
    }  # nothing has a surround or a scale, which divides nothing
    assert next(iter(found["skin"])).startswith("light")
    assert found["class"]["melanoma"]["JA"]["value"] == pytest.approx(0.6)
    assert found["class"]["melanoma"]["accuracy"]["value"] == 0.5
    assert found["class"]["melanoma"]["mean_AUC"] is None
    low, high = found["class"]["melanoma"]["JA"]["interval"]
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.7))


def test_rows_without_masks_labels_or_traits_have_groups_as_far_as_is_known():
    bare = [Row(n, label, False, None, None, None) for n, label in (("a", "nevus"), ("b", "melanoma"), ("c", None))]
    found = subgroups(bare)
    assert list(found) == ["class"]
    assert found["class"]["nevus"] == {"images": 1, "JA": None, "accuracy": None, "mean_AUC": None}
    assert subgroups([]) == {}


def test_the_section_has_a_line_for_each_group():
    page = subgroup_section(subgroups(ROWS))
    assert page.count("<tr>") == 1 + 3 + 3 + 2 + 3
    assert "seborrheic keratosis" in page
    assert '60.0 <span class="range">50.0 to 70.0</span>' in page
    assert subgroup_section({}) == ""
