import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score

from mbdcnn.metrics import SegmentationScores, jaccard, mean_scores, score_mask

EMPTY, FULL = np.zeros((4, 6), bool), np.ones((4, 6), bool)
QUARTER = EMPTY.copy()
QUARTER[:2, :3] = True


def test_counted_by_hand():
    prediction, truth = EMPTY.copy(), EMPTY.copy()
    truth[0, :4] = True  # 4 lesion pixels of 24
    prediction[0, 2:] = True  # 4 predicted, 2 of them right
    scores = score_mask(prediction, truth)
    assert scores == pytest.approx((2 / 6, 4 / 8, 20 / 24, 2 / 4, 18 / 20))
    assert scores._fields == ("JA", "DI", "AC", "SE", "SP")


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(5, 60, 2))
    prediction, truth = (rng.random(shape) < rng.uniform(0.05, 0.95) for _ in range(2))
    y, p = truth.ravel(), prediction.ravel()
    assert score_mask(prediction, truth) == pytest.approx(
        (jaccard_score(y, p), f1_score(y, p), accuracy_score(y, p), recall_score(y, p), recall_score(~y, ~p))
    )


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        pytest.param(EMPTY, EMPTY, (1, 1, 1, 1, 1), id="both empty"),
        pytest.param(FULL, FULL, (1, 1, 1, 1, 1), id="both full"),
        pytest.param(QUARTER, QUARTER, (1, 1, 1, 1, 1), id="exact"),
        pytest.param(QUARTER, EMPTY, (0, 0, 0.75, 0, 1), id="nothing predicted"),
        pytest.param(QUARTER, FULL, (0.25, 0.4, 0.25, 1, 0), id="everything predicted"),
        pytest.param(EMPTY, QUARTER, (0, 0, 0.75, 1, 0.75), id="no lesion"),
        pytest.param(FULL, QUARTER, (0.25, 0.4, 0.25, 0.25, 1), id="lesion everywhere"),
        pytest.param(FULL, EMPTY, (0, 0, 0, 0, 1), id="full against empty"),
        pytest.param(EMPTY, FULL, (0, 0, 0, 1, 0), id="empty against full"),
        pytest.param(QUARTER, ~QUARTER, (0, 0, 0, 0, 0), id="inverted"),
    ],
)
def test_edges(truth, prediction, expected):
    assert score_mask(prediction, truth) == pytest.approx(expected)
    # scikit-learn's way to the same rule: what divides zero by zero is 1
    y, p = truth.ravel(), prediction.ravel()
    measures = (jaccard_score, f1_score, recall_score)
    ja, di, se = (measure(y, p, zero_division=1.0) for measure in measures)
    assert expected == pytest.approx((ja, di, accuracy_score(y, p), se, recall_score(~y, ~p, zero_division=1.0)))


def test_large_masks_are_counted_exactly():
    truth = np.ones((4499, 674), bool)
    prediction = truth.copy()
    prediction[0, 0] = False
    assert score_mask(prediction, truth).JA * truth.size == truth.size - 1


def test_unusable_masks_are_refused():
    with pytest.raises(ValueError, match="shape"):
        score_mask(EMPTY, EMPTY.T)
    with pytest.raises(ValueError, match="boolean"):
        score_mask(EMPTY.astype(np.uint8) * 255, EMPTY)
    with pytest.raises(ValueError, match="shape"):
        score_mask(EMPTY[:0], EMPTY[:0])


def test_mean_weighs_images_alike():
    small, large = (
        score_mask(QUARTER, QUARTER),
        score_mask(np.zeros((400, 600), bool), np.ones((400, 600), bool)),
    )
    mean = mean_scores(iter([small, large]))
    assert isinstance(mean, SegmentationScores)
    assert mean == pytest.approx((0.5, 0.5, 0.5, 0.5, 1.0))
    assert mean_scores([]) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_jaccard_equals_per_image(dtype):
    masks = [EMPTY, FULL, QUARTER, ~QUARTER]
    pairs = list(itertools.product(masks, masks))
    probability = torch.tensor(np.stack([p for p, _ in pairs]), dtype=dtype)[:, None] * 0.8 + 0.1
    truth = torch.tensor(np.stack([t for _, t in pairs]), dtype=dtype)[:, None]
    scores = jaccard(probability, truth)
    assert scores.shape == (16,)
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([score_mask(p, t).JA for p, t in pairs])


def test_batch_jaccard_counts_past_bfloat16():
    truth = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    probability = truth.clone()
    probability[..., :3, :] = 0
    assert jaccard(probability, truth).item() == pytest.approx(61 / 64)


def test_batch_jaccard_threshold_and_types():
    probability = torch.tensor([0.2, 0.5, 0.6, 0.9]).reshape(1, 1, 2, 2)
    truth = torch.tensor([False, True, True, True]).reshape(1, 1, 2, 2)
    assert jaccard(probability, truth).item() == pytest.approx(2 / 3)  # 0.5 itself is background
    assert jaccard(probability, truth.to(torch.uint8), threshold=0.1).item() == pytest.approx(3 / 4)


def test_batch_jaccard_refuses_other_shapes():
    with pytest.raises(ValueError, match="B, 1, H, W"):
        jaccard(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="B, 1, H, W"):
        jaccard(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
