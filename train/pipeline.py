"""Batches through DALI for every stage, the same on a CPU and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy
from torch import Tensor

from mbdcnn.config import AugmentationConfig
from mbdcnn.networks import binarise
from mbdcnn.preprocessing import Preprocessing
from train.augmentation import Geometry, draw_colour, draw_geometry, upright
from train.encoded import EncodedFiles
from train.graph import sample_graph
from train.sampling import Batch, EvaluationOrder, TrainingOrder
from train.warp import PlaneWarp

_PREFETCH = 2  # batches that DALI prepares ahead


@dataclass(frozen=True)
class Sample:
    """One item's files.

    Attributes:
        image: encoded image.
        planes: encoded masks that share the image's geometry (truth, coarse mask), in the order of `Loader.planes`.
        label: class index, -1 without.
    """

    image: Path
    planes: tuple[Path, ...] = ()
    label: int = -1


@dataclass(frozen=True)
class LoadedBatch:
    """A batch on the trainer's device.

    Attributes:
        images: `(B, 3, S, S)` float32, normalised.
        planes: name -> `(B, 1, S, S)` float32 in {0, 1}.
        labels: `(B,)` int64.
        indices: `(B,)` int64, of the samples.
        weight: of this process's share in means over all (`train.sampling.Batch`).
    """

    images: Tensor
    planes: dict[str, Tensor]
    labels: Tensor
    indices: Tensor
    weight: float = 1.0

    def split(self, parts: int) -> list[LoadedBatch]:
        """Cut it into micro-batches, whose weighted means add up to that of the whole."""
        if parts == 1:
            return [self]
        planes = {name: plane.tensor_split(parts) for name, plane in self.planes.items()}
        columns = zip(*(t.tensor_split(parts) for t in (self.images, self.labels, self.indices)), strict=True)
        return [
            LoadedBatch(
                images,
                {name: pieces[number] for name, pieces in planes.items()},
                labels,
                indices,
                self.weight * len(indices) / len(self.indices),
            )
            for number, (images, labels, indices) in enumerate(columns)
        ]


Segment = Callable[[LoadedBatch], Tensor]  # lesion probabilities `(B, 1, S, S)`


class Loader:
    """Batches of samples through DALI.

    What a batch holds is a pure function of the seed, the epoch and the batch's place in it, whatever the number of
    threads and processes: a training that goes on at (epoch, batch) gets what it would have got.

    Args:
        samples: the data set.
        planes: names of each sample's masks.
        order: which samples, in which batches.
        preprocessing: size, mean and deviation.
        augmentation: ranges of the random geometry and colour; None leaves the frame as it is.
        seed: of both.
        device: the trainer's.
        threads: of DALI's CPU operators.
        computed: further planes by name, from the whole frames that are not augmented; they too take the geometry.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        planes: Sequence[str],
        order: TrainingOrder | EvaluationOrder,
        preprocessing: Preprocessing,
        augmentation: AugmentationConfig | None,
        seed: int,
        device: torch.device,
        threads: int = 1,
        computed: Mapping[str, Segment] | None = None,
    ) -> None:
        self.samples = samples
        self.planes = tuple(planes)
        self.order = order
        self.seed = seed
        self.augmentation = augmentation
        self.preprocessing = preprocessing
        self.computed = dict(computed or {})
        self._device, self._threads = device, threads
        self._files = EncodedFiles()
        self._epoch = 0
        self._batches: list[Batch] = []
        self._iterator: DALIGenericIterator | None = None
        self._warp: PlaneWarp | None = None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[LoadedBatch]:
        """The batches of one epoch from the `first` on; any epoch can be asked for, in any order.

        A file that Pillow reads and DALI refuses is handed to DALI in another encoding, and the epoch goes on.

        Raises:
            UserError: a file has gone, or can no longer be decoded.
        """
        batches = self.order.batches(epoch)
        while first < len(batches):
            self._epoch, self._batches = epoch, batches[first:]
            try:
                for batch, loaded in zip(self._batches, self._run(), strict=True):
                    first += 1
                    yield self._completed(batch, loaded)
            except RuntimeError:  # the pipeline is dead after it, and it may lie up to a queue ahead
                ahead = {i for batch in batches[first : first + _PREFETCH + 1] for i in batch.indices}
                samples = [self.samples[i] for i in sorted(ahead)]
                images, planes = [s.image for s in samples], [p for s in samples for p in s.planes]
                if not self._files.reencode_refused(images, planes, self._device):
                    raise

    def _run(self) -> Iterator[dict[str, Tensor]]:
        """What DALI makes of the current batches; the pipeline is kept for the next epoch only if it ends well."""
        iterator, self._iterator = self._iterator, None
        if iterator is None:
            iterator = self._built()
        else:
            iterator.reset()
        for (outputs,) in iterator:
            yield outputs
        self._iterator = iterator

    def _built(self) -> DALIGenericIterator:
        gpu = self._device.type == "cuda"
        upright = self._needs_frames
        pipeline = sample_graph(
            source=self._read,
            n_planes=len(self.planes),
            spec=self.preprocessing,
            augment=self.augmentation is not None,
            recolour=self.augmentation is not None and self.augmentation.changes_colour,
            upright=upright,
            gpu=gpu,
            batch_size=self._largest,
            num_threads=self._threads,
            device_id=self._device.index or 0 if gpu else None,
            prefetch_queue_depth=_PREFETCH,
        )
        pipeline.build()
        names = ["images", *self.planes, "labels", "indices", *(["frames"] if upright else [])]
        return DALIGenericIterator(
            pipeline, names, last_batch_policy=LastBatchPolicy.PARTIAL, prepare_first_batch=False
        )

    @property
    def _needs_frames(self) -> bool:
        """Whether computed planes need the frames beside the augmented images."""
        return bool(self.computed) and self.augmentation is not None

    @property
    def _largest(self) -> int:
        return max((len(batch.indices) for batch in self.order.batches(0)), default=1)

    def _read(self, iteration: int) -> tuple[list[np.ndarray], ...]:
        """The encoded files and the geometry of one batch; called by DALI ahead of the trainer."""
        if iteration >= len(self._batches):
            raise StopIteration
        batch = self._batches[iteration]
        samples = [self.samples[i] for i in batch.indices]
        geometry = self._geometry(batch)
        colours = self._colours(batch)
        return (
            [self._files.read(s.image) for s in samples],
            *([self._files.read(s.planes[k]) for s in samples] for k in range(len(self.planes))),
            [np.array([s.label], np.int64) for s in samples],
            [np.array([i], np.int64) for i in batch.indices],
            [g.crop_start for g in geometry],
            [g.crop_end for g in geometry],
            *([[g.matrix for g in geometry]] if self.augmentation else []),
            *([colours] if colours else []),
        )

    def _geometry(self, batch: Batch) -> list[Geometry]:
        if self.augmentation is None:
            return [upright()] * len(batch.positions)
        return [draw_geometry(self.augmentation, self.preprocessing.image_size, rng) for rng in self._chances(batch)]

    def _colours(self, batch: Batch) -> list[np.ndarray]:
        """Of each sample; of none where no colour changes."""
        if self.augmentation is None or not self.augmentation.changes_colour:
            return []
        return [draw_colour(self.augmentation, rng) for rng in self._chances(batch, 1)]

    def _chances(self, batch: Batch, *stream: int) -> Iterator[np.random.Generator]:
        """A source of randomness for each sample, whatever else is drawn; another one for each stream."""
        return (np.random.default_rng([self.seed, self._epoch, position, *stream]) for position in batch.positions)

    def _completed(self, batch: Batch, outputs: dict[str, Tensor]) -> LoadedBatch:
        planes = {name: outputs[name] for name in self.planes}
        labels, indices = outputs["labels"].flatten(), outputs["indices"].flatten()
        frames = LoadedBatch(outputs["frames" if self._needs_frames else "images"], {}, labels, indices)
        for name, segment in self.computed.items():
            # in full precision also under the trainer's autocast: as masks that are written before the training
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                mask = binarise(segment(frames))
            planes[name] = self._warped(mask, batch) if self.augmentation else mask
        return LoadedBatch(outputs["images"], planes, labels, indices, batch.weight)

    def _warped(self, mask: Tensor, batch: Batch) -> Tensor:
        if self._warp is None:
            self._warp = PlaneWarp(self.preprocessing.image_size, self._largest, self._device, self._threads)
        return self._warp(mask, self._geometry(batch))
