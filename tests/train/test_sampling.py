"""Batches: whole epochs, equal shares, the same whatever the number of processes."""

import numpy as np
import pytest

from train.sampling import EvaluationOrder, TrainingOrder


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_shares_make_up_the_global_batches(world: int) -> None:
    whole = TrainingOrder(50, 12, seed=3).batches(4)
    shares = [TrainingOrder(50, 12, 3, rank, world).batches(4) for rank in range(world)]
    assert len(whole) == 4
    for step, batch in enumerate(whole):
        for field in ("positions", "indices"):
            together = np.concatenate([getattr(s[step], field) for s in shares])
            np.testing.assert_array_equal(together, getattr(batch, field))


def test_an_epoch_visits_each_item_at_most_once_and_epochs_differ() -> None:
    order = TrainingOrder(48, 12, seed=0)
    first, second = (np.concatenate([b.indices for b in order.batches(e)]) for e in (0, 1))
    assert sorted(first) == list(range(48))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, np.concatenate([b.indices for b in order.batches(0)]))


def test_balanced_order_draws_classes_equally() -> None:
    labels = [0] * 900 + [1] * 70 + [2] * 30
    order = TrainingOrder(1000, 20, seed=1, labels=labels)
    drawn = np.concatenate([np.asarray(labels)[b.indices] for e in range(5) for b in order.batches(e)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.03)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_covers_every_item_once(world: int) -> None:
    seen = [i for r in range(world) for b in EvaluationOrder(13, 4, r, world).batches() for i in b.indices]
    assert sorted(seen) == list(range(13))
