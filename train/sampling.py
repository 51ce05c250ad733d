"""Which samples make up each batch: a pure function of seed and epoch, the same for any number of processes.

That makes a place in training two numbers, the epoch and the batch: whoever asks for them gets the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """One process's share of one batch.

    Attributes:
        positions: in the epoch; together with seed and epoch they fix each sample's augmentation.
        indices: of the items to load, aligned with `positions`.
        weight: this share's size against the mean of all processes' shares. A mean over the share times `weight`,
            averaged over the processes, is the mean over the whole batch.
    """

    positions: np.ndarray
    indices: np.ndarray
    weight: float = 1.0


@dataclass(frozen=True)
class TrainingOrder:
    """Shuffled; every item once an epoch, in batches as equal as can be, each cut into one share per process.

    The last batch is not left with a handful of items, whose batch statistics would be poor: batches differ by one
    item at most. Process r of R takes the r-th R-th of every global batch, so the global batches do not depend on R.

    Attributes:
        n_items: in the data set.
        batch_size: over all processes, at most; at least twice `world`, so that no share is empty.
        seed: of the order.
        rank: of this process.
        world: number of processes.
        labels: class index of each item, -1 without label, to draw the classes equally often with replacement; None for
            a permutation.
    """

    n_items: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    labels: Sequence[int] | None = None

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(self.n_items / self.batch_size)

    def batches(self, epoch: int) -> list[Batch]:
        """This process's shares of the epoch's batches."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.labels is None:
            order = rng.permutation(self.n_items)
        else:
            _, labels, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
            weight = 1 / counts[labels]
            order = rng.choice(self.n_items, self.n_items, p=weight / weight.sum())
        return [self._share(positions, order) for positions in np.array_split(np.arange(self.n_items), self.steps)]

    def _share(self, positions: np.ndarray, order: np.ndarray) -> Batch:
        own = np.array_split(positions, self.world)[self.rank]
        return Batch(own, order[own], len(own) * self.world / len(positions))


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
