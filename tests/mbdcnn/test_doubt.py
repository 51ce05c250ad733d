"""What the doubts are, on maps and features that are known."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from mbdcnn.doubt import UNKNOWN, Calibration, Familiarity, class_doubt, mask_doubt


def test_mask_doubt_is_one_minus_the_expected_overlap():
    p = torch.zeros(3, 1, 4, 4)
    p[0, 0, :2] = 1  # certain
    p[1, 0, :2] = 0.8
    p[1, 0, 2:] = 0.1
    doubt = mask_doubt(p)
    assert doubt.shape == (3, 1)
    assert doubt[:, 0].tolist() == pytest.approx([0, 1 - 8 * 0.8 / (8 + 8 * 0.1), 1])  # the last mask is empty


def test_a_blurred_rim_is_doubted_more_than_a_sharp_one():
    distance = torch.hypot(*torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij"))
    maps = torch.stack([torch.sigmoid((0.5 - distance) / width)[None] for width in (0.01, 0.05, 0.2)])
    doubts = mask_doubt(maps)[:, 0].tolist()
    assert doubts == sorted(doubts)
    assert doubts[0] < 0.1 < doubts[2]


def test_familiarity_is_the_distance_under_the_covariance_of_probabilistic_pca():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, 12)) @ rng.normal(size=(12, 12)) + 3
    found = PCA(4).fit(data)
    parts = (found.mean_, found.components_, found.explained_variance_, found.noise_variance_, 2.0)
    familiarity = Familiarity(*(torch.tensor(part) for part in parts))
    shown = rng.normal(size=(5, 12)) * 4
    away = shown - found.mean_
    expected = np.sqrt(np.einsum("ni,ij,nj->n", away, found.get_precision(), away)) / 2
    assert familiarity(torch.tensor(shown))[:, 0].numpy() == pytest.approx(expected, rel=1e-4)


def test_a_temperature_keeps_the_decision():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 2.9]])
    hot, doubt, unfamiliarity = Calibration(2.0)(logits, torch.zeros(2, 8))
    assert torch.allclose(hot, (logits / 2).softmax(1))
    assert torch.equal(doubt, class_doubt(hot))
    assert (hot.argmax(1) == logits.argmax(1)).all()
    assert unfamiliarity.tolist() == [[UNKNOWN]] * 2
    assert torch.equal(Calibration()(logits, torch.zeros(2, 8))[0], logits.softmax(1))
