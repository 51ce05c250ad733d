"""Calibration and doubt of an evaluation."""

import numpy as np
import pytest

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import SegmentationScores
from train._report_rows import Row
from train._report_trust import trust_section
from train._trust import trust


def row(name, ja, doubt, label="nevus", sure=0.8, unfamiliarity=0.5):
    probabilities = np.array([sure, (1 - sure) / 2, (1 - sure) / 2])
    scores = SegmentationScores(ja, 0.9, 0.9, 0.9, 0.9)
    return Row(name, label, True, probabilities, None, scores, CLASSES, mask_doubt=doubt, unfamiliarity=unfamiliarity)


def test_a_doubt_that_orders_the_masks_by_their_risk_gains_all():
    rows = [row("a", 0.9, 0.05), row("b", 0.6, 0.3), row("c", 0.2, 0.9, "melanoma", 0.4, 1.5), row("d", 0.8, 0.1)]
    found = trust(rows)
    assert found["mask_doubt"]["gain"] == pytest.approx(1)
    assert found["mask_doubt"]["random"] == pytest.approx(np.mean([0.1, 0.4, 0.8, 0.2]))
    assert found["class_doubt"]["gain"] == pytest.approx(1)  # the one that is wrong is the least sure
    assert found["unfamiliar"] == 0.25
    assert found["calibration"]["ECE"] == pytest.approx((3 * 0.2 + 0.4) / 4)


def test_what_is_not_said_is_null():
    bare = [Row("a", None, False, None, None, None), Row("b", "odd", False, np.array([0.6, 0.2, 0.2]), None, None)]
    found = trust(bare)
    assert found == dict.fromkeys(("calibration", "mask_doubt", "class_doubt", "unfamiliar"))
    assert trust_section(found) == ""


def test_the_section_tells_each_figure():
    page = trust_section(trust([row("a", 0.9, 0.1), row("b", 0.5, 0.4, "melanoma", 0.6)]))
    assert "ECE 0.400" in page
    assert "gain 1.00 (area 0.200, guessing 0.300, oracle 0.200)" in page
    assert "0.0 %" in page
