"""The geometry of an augmented batch for masks that a network has just made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.augmentation import Geometry
from train.graph import plane_graph


class PlaneWarp:
    """Takes masks the way that the loader takes those it reads, through the same DALI operators.

    Args:
        image_size: side of the masks and of the result, in pixels.
        batch_size: at most.
        device: of the masks and of the result.
        threads: of DALI's CPU operators.
    """

    def __init__(self, image_size: int, batch_size: int, device: torch.device, threads: int = 1) -> None:
        gpu = device.type == "cuda"
        self._pipeline = plane_graph(
            image_size=image_size,
            gpu=gpu,
            batch_size=batch_size,
            num_threads=threads,
            device_id=device.index or 0 if gpu else None,
            prefetch_queue_depth=1,
        )
        self._pipeline.build()

    def __call__(self, masks: Tensor, geometry: Sequence[Geometry]) -> Tensor:
        """Crop, resize and warp.

        Args:
            masks: `(B, 1, S, S)` in {0, 1}.
            geometry: of each sample.

        Returns:
            `(B, 1, S, S)` float32 in {0, 1}.
        """
        planes = (masks * 255).byte().permute(0, 2, 3, 1).contiguous()
        # DALI asks a tensor for its CUDA stream, also where there is none
        self._pipeline.feed_input("plane", planes if planes.is_cuda else planes.numpy())
        self._pipeline.feed_input("start", [g.crop_start for g in geometry])
        self._pipeline.feed_input("end", [g.crop_end for g in geometry])
        self._pipeline.feed_input("matrix", [g.matrix for g in geometry])
        (output,) = self._pipeline.run()
        return torch.from_dlpack(output.as_tensor()).clone()  # DALI uses its memory again
