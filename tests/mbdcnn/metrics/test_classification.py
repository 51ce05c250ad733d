import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import classification_scores, one_versus_rest, scored_classes

NOTHING = {"melanoma": None, "seborrheic_keratosis": None, "mean_AUC": None}


def test_counted_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.3, 0.6, 0.1],  # a nevus taken for melanoma
            [0.2, 0.7, 0.1],
            [0.5, 0.4, 0.1],  # a melanoma taken for nevus
            [0.1, 0.2, 0.7],
            [0.3, 0.3, 0.4],
        ]
    )
    scores = classification_scores(probabilities, labels)
    # Melanoma: 0.7 beats all four others; 0.4 beats 0.1, 0.2, 0.3 but not 0.6.
    assert scores["melanoma"] == pytest.approx({"AUC": 7 / 8, "AC": 4 / 6, "SE": 1 / 2, "SP": 3 / 4})
    assert scores["seborrheic_keratosis"] == pytest.approx({"AUC": 1.0, "AC": 1.0, "SE": 1.0, "SP": 1.0})
    assert scores["mean_AUC"] == pytest.approx((7 / 8 + 1) / 2)
    json.dumps(scores)


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, rng.integers(5, 80))])
    probabilities = rng.dirichlet([1, 1, 1], len(labels)).astype(np.float32).round(2)  # rounding makes ties
    scores = classification_scores(probabilities, labels)
    decision = probabilities.argmax(1)
    for index, name in ((1, "melanoma"), (2, "seborrheic_keratosis")):
        truth, decided = labels == index, decision == index
        assert scores[name] == pytest.approx(
            {
                "AUC": roc_auc_score(truth, probabilities[:, index]),
                "AC": accuracy_score(truth, decided),
                "SE": recall_score(truth, decided),
                "SP": recall_score(~truth, ~decided),
            }
        )
    assert scores["mean_AUC"] == pytest.approx((scores["melanoma"]["AUC"] + scores["seborrheic_keratosis"]["AUC"]) / 2)


def test_constant_answers_are_worth_a_half():
    scores = classification_scores(np.full((3, 3), 1 / 3), np.array([0, 1, 2]))
    assert scores["mean_AUC"] == 0.5
    assert scores["melanoma"]["SE"] == 0.0  # of equals the first class, nevus, is the decision


def test_a_class_that_is_lacking_is_null():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    scores = classification_scores(probabilities, np.array([0, 1, 0]))  # PH2 has no keratosis
    assert scores["melanoma"]["AUC"] == 1.0
    assert scores["seborrheic_keratosis"] is None
    assert scores["mean_AUC"] is None


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_single_class_is_null(label):
    assert classification_scores(np.full((4, 3), 1 / 3), np.full(4, label)) == NOTHING


def test_no_images():
    assert classification_scores(np.zeros((0, 3)), np.zeros(0, int)) == NOTHING


def test_one_versus_rest():
    seen = one_versus_rest(np.array([[0.1, 0.8, 0.1], [0.2, 0.3, 0.5]]), np.array([1, 1]), "melanoma")
    assert seen.truth.tolist() == [True, True]
    assert seen.probability.tolist() == [0.8, 0.3]
    assert seen.decided.tolist() == [True, False]
    assert not seen.has_both_sides


def test_unusable_answers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        classification_scores(np.array([[np.nan, 0.5, 0.5]]), np.array([1]))
    with pytest.raises(ValueError, match="labels"):
        classification_scores(np.full((1, 3), 1 / 3), np.array([-1]))
    with pytest.raises(ValueError, match=r"\(N,\)"):
        classification_scores(np.full((2, 3), 1 / 3), np.array([1]))


def test_which_classes_are_scored():
    assert scored_classes(CLASSES) == ("melanoma", "seborrheic_keratosis")
    assert scored_classes(["benign", "malignant"]) == ("malignant",)
    assert scored_classes(("nevus", "melanoma")) == ("melanoma",)
    assert scored_classes(("a", "b", "c")) == ("a", "b", "c")
    assert scored_classes(tuple(reversed(CLASSES))) == tuple(reversed(CLASSES))


def test_two_classes_equal_scikit_learn():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    second = rng.random(60)
    scores = classification_scores(np.stack([1 - second, second], 1), labels, ("benign", "malignant"))
    auc = roc_auc_score(labels, second)
    found = {
        "AUC": auc,
        "AC": accuracy_score(labels, second > 0.5),
        "SE": recall_score(labels, second > 0.5),
        "SP": recall_score(1 - labels, second <= 0.5),
    }
    assert scores == {"malignant": pytest.approx(found), "mean_AUC": pytest.approx(auc)}


def test_many_classes_are_each_scored_against_the_rest():
    rng = np.random.default_rng(4)
    classes, labels = tuple("abcde"), rng.integers(0, 5, 90)
    probabilities = rng.dirichlet(np.ones(5), 90)
    scores = classification_scores(probabilities, labels, classes)
    assert list(scores) == [*classes, "mean_AUC"]
    for index, name in enumerate(classes):
        assert scores[name]["AUC"] == pytest.approx(roc_auc_score(labels == index, probabilities[:, index]))
    assert scores["mean_AUC"] == pytest.approx(np.mean([scores[name]["AUC"] for name in classes]))
    lacking = classification_scores(probabilities[labels != 2], labels[labels != 2], classes)
    assert lacking["c"] is None
    assert lacking["mean_AUC"] is None
    with pytest.raises(ValueError, match=r"need \(N, 3\)"):
        classification_scores(probabilities, labels)
