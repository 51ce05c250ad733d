"""How an image is put to the networks: `single` shows it once, `authors` in many views whose answers are merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mbdcnn.doubt import UNKNOWN
from mbdcnn.errors import UserError
from mbdcnn.networks import EnhancedSN, MaskCN, MutualBootstrap
from mbdcnn.networks.bootstrap import guide, guiding_mask
from mbdcnn.preprocessing import Preprocessing, prepare, restore
from train.views import crops, gather, merge, scales, spread

if TYPE_CHECKING:
    from mbdcnn.data.manifest import Item
    from mbdcnn.networks import Prediction

Predict: TypeAlias = "Callable[[Tensor], Prediction]"
Lesion: TypeAlias = Callable[[int, int], np.ndarray]  # (height, width) -> lesion probability of that size, float32
_LOGIT_EPS = 1e-6  # probabilities are kept this far from 0 and 1: no view outvotes the others with an infinite logit


@dataclass(frozen=True)
class Answer:
    """What the networks say of one image, on the CPU; None where the network that would say it is not there.

    Attributes:
        probabilities: `(n,)` float32, of mask-CN's n classes.
        coarse: coarse-SN's lesion probability, at any size.
        enhanced: enhanced-SN's.
        cam: `(h, w)` float32 in [0, 1], of the whole image.
        mask_doubt: in [0, 1], of the enhanced mask; only where the image is seen once.
        unfamiliarity: above 1 for a picture unlike those of the training; only where it is seen once and was measured.
    """

    probabilities: np.ndarray | None
    coarse: Lesion | None
    enhanced: Lesion | None
    cam: np.ndarray | None
    mask_doubt: float | None = None
    unfamiliarity: float | None = None


class Single:
    """The whole frame once; each probability map goes back to the image's size with a bilinear filter.

    Three network passes per image, one of each network; as many times more as the calibration has views.
    """

    def __init__(self, predict: Predict, spec: Preprocessing, batch_size: int, device: torch.device) -> None:
        self.predict = predict
        self.spec = spec
        self.images = batch_size  # asked about at once
        self.device = device

    def load(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `ask` needs of a decoded image `(H, W, 3)` uint8."""
        return (prepare(image, self.spec),)

    @torch.inference_mode()
    def ask(self, inputs: Sequence[Tensor], items: Sequence[Item]) -> list[Answer]:
        """The answers to a batch of what `load` gave.

        Raises:
            UserError: one is not a number.
        """
        (images,) = inputs
        said = self.predict(images.to(self.device))
        probabilities, cams = _array(said.probabilities), _array(said.cam)
        coarse, enhanced = _array(said.coarse_probability), _array(said.lesion_probability)
        doubts, strange = _array(said.mask_doubt), _array(said.unfamiliarity)
        _check(items, [part for part in (probabilities, coarse, enhanced) if part is not None])
        return [
            Answer(
                None if probabilities is None else probabilities[i],
                None if coarse is None else partial(restore, coarse[i, 0]),
                None if enhanced is None else partial(restore, enhanced[i, 0]),
                None if cams is None else cams[i, 0],
                None if doubts is None else doubts[i].item(),
                None if strange is None or strange[i] == UNKNOWN else strange[i].item(),
            )
            for i in range(len(items))
        ]


class Authors:
    """Test-time views as the method's authors chose them.

    Segmentation: 3 scales (`scales`) x 6 views (`VIEWS`). The views' logits, turned back, are averaged, resized to
    the size that is wanted with a bicubic filter, and cut at 0, which is probability 0.5. Classification: the mean
    softmax over 9 central crops (`crops`), each squashed to the network's size; a temperature, which is fitted to the
    answers of `single`, is left out.

    Where the stages meet, an image has one coarse mask, the merged answer of all 18 views. Each classification crop
    is shown with the same crop of that mask. For each of its 18 views enhanced-SN gets the activation map that
    mask-CN gives for that view, shown with the same view of that mask. A further round takes the merged enhanced mask
    for the coarse one.

    That is 18 coarse + 9 and 18 mask + 18 enhanced = 63 network passes per image, and 36 for each further round. The
    authors' code has 105: its coarse-SN sees each of the 9 crops by itself in 6 views (54 passes), which gives every
    crop a mask of its own, and the whole image in 6 views at the first scale alone (6 passes) for the masks that go
    with enhanced-SN's views.
    """

    def __init__(self, networks: MutualBootstrap, spec: Preprocessing, batch_size: int, device: torch.device) -> None:
        self.networks = networks
        self.batch_size = batch_size
        # Six views of half a batch of images fill three whole batches.
        self.images = max(1, batch_size // 2)
        self.device = device
        self.specs = [replace(spec, image_size=size) for size in scales(spec.image_size)]

    def load(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `ask` needs of a decoded image `(H, W, 3)` uint8, each part resized from that image itself.

        Returns:
            Three scales `(3, s, s)`, crops `(9, 3, S, S)` and their frames `(9, 4)` as shares of the image's sides.
        """
        height, width = image.shape[:2]
        whole = [prepare(image, spec) for spec in self.specs]
        frames = crops(height, width)
        parts = [prepare(image[top:bottom, left:right], self.specs[0]) for left, top, right, bottom in frames[:-1]]
        shares = np.array(frames) / (width, height, width, height)
        return *whole, np.stack([*parts, whole[0]]), shares

    @torch.inference_mode()
    def ask(self, inputs: Sequence[Tensor], items: Sequence[Item]) -> list[Answer]:
        """The answers to a batch of what `load` gave.

        Raises:
            UserError: one is not a number.
        """
        *whole, parts, frames = inputs
        coarse_sn = self.networks.coarse_sn
        coarse = enhanced = probabilities = cams = None
        if coarse_sn is not None:
            coarse = self._segment(lambda images, _: coarse_sn(images), whole, None)
        guiding = coarse
        rounds = [(self.networks.mask_cn, self.networks.enhanced_sn), *self.networks.further_rounds]
        for position, (mask_cn, enhanced_sn) in enumerate(rounds, start=1):
            if mask_cn is not None and position == len(rounds):  # earlier rounds only guide
                probabilities, cams = self._classify(mask_cn, parts, frames, guiding)
            if enhanced_sn is not None:
                guiding = enhanced = self._segment(partial(_enhance, mask_cn, enhanced_sn), whole, guiding)
        _check(items, [p for p in (probabilities, *(coarse or ()), *(enhanced or ())) if p is not None])
        return [
            Answer(
                None if probabilities is None else probabilities[i],
                None if coarse is None else partial(_probability, [plane[i] for plane in coarse]),
                None if enhanced is None else partial(_probability, [plane[i] for plane in enhanced]),
                None if cams is None else cams[i],
            )
            for i in range(len(items))
        ]

    def _segment(
        self,
        network: Callable[[Tensor, Tensor | None], Tensor],
        whole: Sequence[Tensor],
        guiding: Sequence[np.ndarray] | None,
    ) -> list[np.ndarray]:
        """Mean logits over the views, `(B, s, s)` at each scale."""
        planes = []
        for images in whole:
            masks = None
            if guiding is not None:
                masks = spread(_masks(guiding, images.shape[-1], np.array([[[0.0, 0.0, 1.0, 1.0]]] * len(images))))
            (probability,) = self._run(lambda *batch: (network(*batch),), spread(images), masks)
            planes.append(gather(torch.logit(probability, _LOGIT_EPS))[:, 0].numpy())
        return planes

    def _classify(
        self, mask_cn: MaskCN, parts: Tensor, frames: Tensor, guiding: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean probabilities `(B, n)` over the crops, and the whole image's activation map `(B, h, w)`."""
        masks = None if guiding is None else _masks(guiding, parts.shape[-1], frames.numpy())
        _, probabilities, cams, _ = self._run(partial(guide, mask_cn), parts.flatten(0, 1), masks)
        count = parts.shape[1]
        return probabilities.unflatten(0, (-1, count)).mean(1).numpy(), cams[count - 1 :: count, 0].numpy()

    def _run(
        self, network: Callable[[Tensor, Tensor | None], Iterable[Tensor]], images: Tensor, masks: Tensor | None
    ) -> list[Tensor]:
        """A network's outputs for any number of images, in calls of `batch_size`, as float32 on the CPU."""
        outputs = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            mask = None if masks is None else masks[part].to(self.device)
            outputs.append([output.float().cpu() for output in network(images[part].to(self.device), mask)])
        return [torch.cat(batches) for batches in zip(*outputs, strict=True)]


PROTOCOLS = ("single", "authors")


def protocol_named(
    name: str, predict: Predict, spec: Preprocessing, batch_size: int, device: torch.device
) -> Single | Authors:
    """The protocol of a name.

    Raises:
        UserError: there is none.
        TypeError: `authors` asks the networks one by one, and `predict` is not a `MutualBootstrap`.
    """
    if name == "single":
        return Single(predict, spec, batch_size, device)
    if name != "authors":
        raise UserError(f"There is no protocol {name}; the protocols are {' and '.join(PROTOCOLS)}.")
    if not isinstance(predict, MutualBootstrap):
        raise TypeError(f"the protocol authors needs a MutualBootstrap, not a {type(predict).__name__}")
    return Authors(predict, spec, batch_size, device)


def _enhance(mask_cn: MaskCN | None, enhanced_sn: EnhancedSN, images: Tensor, masks: Tensor | None) -> Tensor:
    cams = None if mask_cn is None else guide(mask_cn, images, masks).cam
    return enhanced_sn(images, cams)


def _masks(planes: Sequence[np.ndarray], side: int, frames: np.ndarray) -> Tensor:
    """Guiding masks `(B * n, 1, side, side)` of n frames `(B, n, 4)` of each image, from logits at each scale."""
    logits = [
        merge([plane[i] for plane in planes], side, side, tuple(frame)) for i, own in enumerate(frames) for frame in own
    ]
    return guiding_mask(torch.from_numpy(np.stack(logits)).sigmoid())[:, None]


def _probability(planes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    return torch.from_numpy(merge(planes, height, width)).sigmoid_().numpy()


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.float().cpu().numpy()


def _check(items: Sequence[Item], parts: Sequence[np.ndarray]) -> None:
    for position, item in enumerate(items):
        if not all(np.isfinite(part[position]).all() for part in parts):
            raise UserError(
                f"The networks' answer to {item.image} is not a number: their training diverged or the "
                "weights are damaged; train again, with a lower learning rate if it repeats."
            )
