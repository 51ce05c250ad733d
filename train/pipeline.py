"""The DALI pipeline that feeds every stage: decode, augment, resize, normalise; the same graph on a CPU and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy
from torch import Tensor

from mbdcnn.config import AugmentationConfig
from mbdcnn.preprocessing import Preprocessing
from train.augmentation import Geometry, draw_geometry, upright
from train.sampling import Batch, EvaluationOrder, TrainingOrder


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
    """

    images: Tensor
    planes: dict[str, Tensor]
    labels: Tensor
    indices: Tensor


class Loader:
    """Batches of samples through DALI.

    Args:
        samples: the data set.
        planes: names of each sample's masks.
        order: which samples, in which batches.
        preprocessing: size, mean and deviation.
        augmentation: ranges of the random geometry; None leaves the frame as it is.
        seed: of the geometry, which is a pure function of (seed, epoch, position in the epoch).
        device: the trainer's.
        threads: of DALI's CPU operators.
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
    ) -> None:
        self.samples = samples
        self.planes = tuple(planes)
        self.order = order
        self.seed = seed
        self.augmentation = augmentation
        self.preprocessing = preprocessing
        self._epoch = 0
        self._batches: list[Batch] = []
        gpu = device.type == "cuda"
        self._pipeline = _pipeline(
            source=self._read,
            n_planes=len(self.planes),
            spec=preprocessing,
            augment=augmentation is not None,
            gpu=gpu,
            batch_size=max((len(b.indices) for b in order.batches(0)), default=1),
            num_threads=threads,
            device_id=device.index or 0 if gpu else None,
            prefetch_queue_depth=2,
        )
        self._pipeline.build()
        self._iterator: DALIGenericIterator | None = None

    def epoch(self, epoch: int) -> Iterator[LoadedBatch]:
        """The batches of one epoch; any epoch can be asked for, in any order."""
        self._epoch, self._batches = epoch, self.order.batches(epoch)
        if not self._batches:  # more processes than images
            return
        names = ["images", *self.planes, "labels", "indices"]
        if self._iterator is None:
            self._iterator = DALIGenericIterator(
                self._pipeline, names, last_batch_policy=LastBatchPolicy.PARTIAL, prepare_first_batch=False
            )
        else:
            self._iterator.reset()
        for (batch,) in self._iterator:
            yield LoadedBatch(
                images=batch["images"],
                planes={name: batch[name] for name in self.planes},
                labels=batch["labels"].flatten(),
                indices=batch["indices"].flatten(),
            )

    def _read(self, iteration: int) -> tuple[list[np.ndarray], ...]:
        """The encoded files and the geometry of one batch; called by DALI ahead of the trainer."""
        if iteration >= len(self._batches):
            raise StopIteration
        batch = self._batches[iteration]
        samples = [self.samples[i] for i in batch.indices]
        geometry = [self._geometry(int(p)) for p in batch.positions]
        return (
            [_encoded(s.image) for s in samples],
            *([_encoded(s.planes[k]) for s in samples] for k in range(len(self.planes))),
            [np.array([s.label], np.int64) for s in samples],
            [np.array([i], np.int64) for i in batch.indices],
            [g.crop_start for g in geometry],
            [g.crop_end for g in geometry],
            *([[g.matrix for g in geometry]] if self.augmentation else []),
        )

    def _geometry(self, position: int) -> Geometry:
        if self.augmentation is None:
            return upright()
        rng = np.random.default_rng([self.seed, self._epoch, position])
        return draw_geometry(self.augmentation, self.preprocessing.image_size, rng)


def _encoded(path: Path) -> np.ndarray:
    return np.fromfile(path, dtype=np.uint8)


@pipeline_def
def _pipeline(
    source: Callable[[int], tuple[list[np.ndarray], ...]], n_planes: int, spec: Preprocessing, augment: bool, gpu: bool
) -> tuple[DataNode, ...]:
    """Image, planes, label and index; every plane takes exactly the image's way, with nearest neighbours.

    The crop is cut and resized in one antialiased step, then one affine warp does the rest: two resamplings in all,
    and neither aliases when the original is many times the network's size.
    """
    encoded, *rest = fn.external_source(source=source, num_outputs=5 + n_planes + augment, batch=True)
    planes, (labels, indices, start, end, *matrix) = rest[:n_planes], rest[n_planes:]
    size = [spec.image_size, spec.image_size]

    image = fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)
    image = fn.resize(
        image,
        size=size,
        roi_start=start,
        roi_end=end,
        roi_relative=True,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )
    if augment:
        image = fn.warp_affine(image, matrix=matrix[0], interp_type=types.INTERP_LINEAR, fill_value=0, inverse_map=True)
    image = fn.crop_mirror_normalize(
        image,
        mean=[255 * m for m in spec.mean],
        std=[255 * s for s in spec.std],
        dtype=types.FLOAT,
        output_layout="CHW",
    )
    outputs = [image]
    for encoded_plane in planes:
        plane = fn.decoders.image(encoded_plane, device="cpu", output_type=types.GRAY)
        plane = plane.gpu() if gpu else plane
        plane = fn.resize(
            plane, size=size, roi_start=start, roi_end=end, roi_relative=True, interp_type=types.INTERP_NN
        )
        if augment:
            plane = fn.warp_affine(plane, matrix=matrix[0], interp_type=types.INTERP_NN, fill_value=0, inverse_map=True)
        outputs.append(fn.transpose(fn.cast(plane > 127, dtype=types.FLOAT), perm=[2, 0, 1]))
    labels, indices = (labels.gpu(), indices.gpu()) if gpu else (labels, indices)
    return (*outputs, labels, indices)
