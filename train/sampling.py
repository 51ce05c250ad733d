"""Which samples make up each batch: a pure function of seed and epoch, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """One process's share of one batch.

    Attributes:
        positions: in the epoch; together with seed and epoch they fix each sample's augmentation.
        indices: of the items to load, aligned with `positions`.
    """

    positions: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class TrainingOrder:
    """Shuffled, whole batches, cut into one equal share per process.

    Process r of R takes the r-th R-th of every global batch, so the global batches do not depend on R.

    Attributes:
        n_items: in the data set.
        batch_size: over all processes, a multiple of `world`.
        seed: of the order.
        rank: of this process.
        world: number of processes.
        labels: class index of each item, to draw the classes equally often with replacement; None for a permutation.
    """

    n_items: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    labels: Sequence[int] | None = None

    @property
    def steps(self) -> int:
        """Batches an epoch; the incomplete last one is dropped."""
        return self.n_items // self.batch_size

    def batches(self, epoch: int) -> list[Batch]:
        """This process's shares of the epoch's batches."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.labels is None:
            order = rng.permutation(self.n_items)
        else:
            labels = np.asarray(self.labels)
            weight = 1 / np.bincount(labels)[labels]
            order = rng.choice(self.n_items, self.n_items, p=weight / weight.sum())
        share = self.batch_size // self.world
        starts = np.arange(self.steps) * self.batch_size + self.rank * share
        return [Batch(np.arange(s, s + share), order[s : s + share]) for s in starts]


@dataclass(frozen=True)
class EvaluationOrder:
    """Every item once, in order; process r of R takes every R-th."""

    n_items: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def batches(self, epoch: int = 0) -> list[Batch]:
        """This process's batches; the last may be smaller."""
        own = np.arange(self.rank, self.n_items, self.world)
        return [Batch(b, b) for b in np.split(own, range(self.batch_size, len(own), self.batch_size)) if len(b)]
