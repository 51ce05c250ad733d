"""Batches: whole epochs, equal shares, the same whatever the number of processes."""

import numpy as np
import pytest

from train.sampling import EvaluationOrder, TrainingOrder


@pytest.mark.parametrize("n_items", [48, 50, 13])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_shares_make_up_the_global_batches_and_those_every_item(world: int, n_items: int) -> None:
    whole = TrainingOrder(n_items, 12, seed=3).batches(4)
    shares = [TrainingOrder(n_items, 12, 3, rank, world).batches(4) for rank in range(world)]
    assert sorted(i for batch in whole for i in batch.indices) == list(range(n_items))
    sizes = [len(batch.indices) for batch in whole]
    assert max(sizes) <= 12
    assert max(sizes) - min(sizes) <= 1
    for step, batch in enumerate(whole):
        for field in ("positions", "indices"):
            together = np.concatenate([getattr(s[step], field) for s in shares])
            np.testing.assert_array_equal(together, getattr(batch, field))
        assert all(len(s[step].indices) for s in shares)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_weighted_means_of_the_shares_average_to_the_batch_mean(world: int) -> None:
    (whole,) = TrainingOrder(11, 12, seed=3).batches(0)
    shares = [TrainingOrder(11, 12, 3, rank, world).batches(0)[0] for rank in range(world)]
    values = np.random.default_rng(0).random(11)
    mean = np.mean([values[share.indices].mean() * share.weight for share in shares])
    assert mean == pytest.approx(values[whole.indices].mean())


def test_epochs_differ_and_each_can_be_asked_for_again() -> None:
    order = TrainingOrder(48, 12, seed=0)
    first, second = (np.concatenate([b.indices for b in order.batches(e)]) for e in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, np.concatenate([b.indices for b in order.batches(0)]))


@pytest.mark.parametrize("classes", [(0, 1, 2), (-1, 0, 2)], ids=["all-labelled", "some-without"])
def test_balanced_order_draws_classes_equally(classes: tuple[int, int, int]) -> None:
    labels = [classes[0]] * 900 + [classes[1]] * 70 + [classes[2]] * 30
    order = TrainingOrder(1000, 20, seed=1, labels=labels)
    drawn = np.concatenate([np.asarray(labels)[b.indices] for e in range(5) for b in order.batches(e)])
    np.testing.assert_allclose(np.unique(drawn, return_counts=True)[1] / len(drawn), 1 / 3, atol=0.03)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_covers_every_item_once(world: int) -> None:
    seen = [i for r in range(world) for b in EvaluationOrder(13, 4, r, world).batches() for i in b.indices]
    assert sorted(seen) == list(range(13))
