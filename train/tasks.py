"""What each of the three networks learns, from what, and how its validation is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbdcnn.losses import HybridLoss
from mbdcnn.metrics import classification_scores, jaccard, scored_classes
from mbdcnn.networks import CoarseSN, MaskCN, guide, place
from train import stopping
from train.monitor import Show
from train.pipeline import LoadedBatch, Loader
from train.processes import Process
from train.sampling import TrainingOrder

_Row = TypeVar("_Row")


class _Task:
    """A network with its training and validation batches."""

    def __init__(self, network: CoarseSN | MaskCN, training: Loader, validation: Loader, process: Process) -> None:
        self.network = network
        self.training = training
        self.validation = validation
        self.process = process

    @property
    def steps(self) -> int:
        """Training batches an epoch."""
        assert isinstance(self.training.order, TrainingOrder)
        return self.training.order.steps

    def batches(self, epoch: int, first: int) -> Iterator[LoadedBatch]:
        """This process's training batches, from the `first` of the epoch on."""
        return self.training.epoch(epoch, first)

    def files(self, indices: Tensor) -> list[str]:
        """The images of some training samples."""
        return [str(self.training.samples[i].image) for i in indices.tolist()]

    def _over_validation(self, rows: Callable[[LoadedBatch, bool], Iterable[_Row]]) -> list[_Row] | None:
        """What `rows` makes of each validation batch, of all processes; None when one was asked to stop meanwhile.

        It is told of one batch, the same in every epoch, that its examples are to be shown.
        """
        own: list[_Row] = []
        for number, batch in enumerate(self.validation.epoch(0)):
            if stopping.requested():
                break
            own += rows(batch, number == 0)
        (stop,) = self.process.any(stopping.requested())
        return None if stop else self.process.gather(own)


class CoarseTask(_Task):
    """Coarse-SN: the lesion's mask from the image."""

    score = "JA"

    def __init__(
        self, network: CoarseSN, training: Loader, validation: Loader, process: Process, loss: HybridLoss
    ) -> None:
        super().__init__(network, training, validation, process)
        self.loss = loss

    def predict(self, network: nn.Module, batch: LoadedBatch) -> Tensor:
        """Lesion probabilities `(B, 1, S, S)`."""
        return network(batch.images)

    def losses(self, network: nn.Module, batch: LoadedBatch) -> dict[str, Tensor]:
        """Hybrid loss with its parts."""
        parts = self.loss.parts(self.predict(network, batch), batch.planes["truth"])
        return {"loss": self.loss.combine(parts), **parts}

    def validate(self, network: nn.Module, show: Show) -> dict[str, float] | None:
        """Mean Jaccard index per image, at the network's size; None when asked to stop meanwhile."""

        def indices(batch: LoadedBatch, shown: bool) -> list[float]:
            found, truth = self.predict(network, batch), batch.planes["truth"]
            values: list[float] = jaccard(found, truth).tolist()
            if shown:
                show(batch.images, truth, found, [f"JA {value:.2f}" for value in values])
            return values

        scores = self._over_validation(indices)
        return None if scores is None else {"JA": sum(scores) / len(scores)}


class EnhancedTask(CoarseTask):
    """Enhanced-SN: the lesion's mask from the image and the frozen mask-CN's activation map (if there is one)."""

    def __init__(
        self,
        network: CoarseSN,
        training: Loader,
        validation: Loader,
        process: Process,
        loss: HybridLoss,
        mask_cn: MaskCN | None,
    ) -> None:
        super().__init__(network, training, validation, process, loss)
        self.mask_cn = mask_cn and place(mask_cn, process.device).eval().requires_grad_(False)

    def predict(self, network: nn.Module, batch: LoadedBatch) -> Tensor:
        """Lesion probabilities `(B, 1, S, S)`."""
        if self.mask_cn is None:
            return network(batch.images, None)
        with torch.no_grad():
            cam = guide(self.mask_cn, batch.images, batch.planes.get("guide")).cam
        return network(batch.images, cam)


class MaskTask(_Task):
    """Mask-CN: the diagnosis from the image and the coarse mask.

    The best epoch has the best mean AUC; where the validation split lacks a class that the mean needs, accuracy.
    """

    def __init__(
        self, network: MaskCN, training: Loader, validation: Loader, process: Process, label_smoothing: float
    ) -> None:
        super().__init__(network, training, validation, process)
        self.label_smoothing = label_smoothing
        self.classes = network.classes
        present = {self.classes[sample.label] for sample in validation.samples}
        scored = len(present) > 1 and present >= set(scored_classes(self.classes))
        self.score = "mean_AUC" if scored else "AC"

    def losses(self, network: nn.Module, batch: LoadedBatch) -> dict[str, Tensor]:
        """Cross-entropy."""
        logits, _ = network(batch.images, batch.planes.get("guide"))
        return {"loss": F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)}

    def validate(self, network: nn.Module, show: Show) -> dict[str, float] | None:
        """Accuracy over the classes, and the mean AUC where it is defined; None when asked to stop meanwhile."""

        def answers(batch: LoadedBatch, shown: bool) -> list[tuple[int, int, list[float]]]:
            guide = batch.planes.get("guide")
            logits, _ = network(batch.images, guide)
            found: list[list[float]] = logits.softmax(1).tolist()
            labels: list[int] = batch.labels.tolist()
            if shown:
                show(batch.images, None, guide, [self._verdict(*pair) for pair in zip(labels, found, strict=True)])
            return list(zip(batch.indices.tolist(), labels, found, strict=True))

        rows = self._over_validation(answers)
        if rows is None:
            return None
        rows.sort()  # by index: the sums do not depend on the number of processes
        labels = torch.tensor([label for _, label, _ in rows])
        probabilities = torch.tensor([p for _, _, p in rows])
        scores = classification_scores(probabilities.numpy(), labels.numpy(), self.classes)
        accuracy = (probabilities.argmax(1) == labels).float().mean().item()
        mean_auc = scores["mean_AUC"]
        return {"AC": accuracy} if mean_auc is None else {"mean_AUC": mean_auc, "AC": accuracy}

    def _verdict(self, label: int, probabilities: list[float]) -> str:
        """An example's class and what it was taken for."""
        found = max(range(len(probabilities)), key=probabilities.__getitem__)
        said = f"{self.classes[found]} {probabilities[found]:.0%}"
        return said if found == label else f"{self.classes[label]}, found {said}"
