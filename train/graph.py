"""The DALI graphs: decode, crop, resize, recolour, warp, normalise; each defined once for a CPU and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from nvidia.dali import fn, math, pipeline_def, types
from nvidia.dali.data_node import DataNode

from mbdcnn.preprocessing import Preprocessing

Source = Callable[[int], tuple[Sequence[np.ndarray], ...]]


@pipeline_def
def sample_graph(
    source: Source, n_planes: int, spec: Preprocessing, augment: bool, recolour: bool, upright: bool, gpu: bool
) -> tuple[DataNode, ...]:
    """Image, planes, label and index; every plane takes exactly the image's way, with nearest neighbours.

    The crop is cut and resized in one antialiased step, then one affine warp does the rest: two resamplings in all,
    and neither aliases when the original is many times the network's size.

    Args:
        source: gives the batch of an iteration: encoded images, encoded planes, labels, indices, and of the geometry
            (`train.augmentation.Geometry`) start, end and, to augment, matrix, and to recolour
            `train.augmentation.draw_colour`.
        n_planes: masks of each sample.
        spec: size, mean and deviation.
        augment: whether there are matrices to warp by.
        recolour: whether there are changes of colour; what a warp fills in stays black.
        upright: whether the whole frame, not augmented, is wanted too, as the last output.
        gpu: decode with `mixed` and do everything after it on the GPU; masks are decoded on the CPU, as nvJPEG has no
            PNG.
    """
    encoded, *rest = fn.external_source(source=source, num_outputs=5 + n_planes + augment + recolour, batch=True)
    planes, (labels, indices, start, end, *changes) = rest[:n_planes], rest[n_planes:]
    matrix, colour = changes[:augment], changes[augment:]
    device = "mixed" if gpu else "cpu"
    frames: list[DataNode] = []
    if upright:
        whole = fn.decoders.image(encoded, device=device, output_type=types.RGB)
        frames = [_normalised(_resized(whole, spec.image_size, [0.0, 0.0], [1.0, 1.0]), spec)]
        image = _resized(whole, spec.image_size, start, end)
    else:
        image = _decoded_crop(encoded, device, spec.image_size, start, end)
    if colour:
        brightness, contrast, saturation, hue = (colour[0][i] for i in range(4))
        image = fn.color_twist(image, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    if augment:
        image = fn.warp_affine(image, matrix=matrix[0], interp_type=types.INTERP_LINEAR, fill_value=0, inverse_map=True)
    outputs = [_normalised(image, spec)]
    for encoded_plane in planes:
        plane = fn.decoders.image(encoded_plane, device="cpu", output_type=types.GRAY)
        plane = plane.gpu() if gpu else plane
        outputs.append(_plane(plane, spec.image_size, start, end, matrix))
    labels, indices = (labels.gpu(), indices.gpu()) if gpu else (labels, indices)
    return (*outputs, labels, indices, *frames)


@pipeline_def
def plane_graph(image_size: int, gpu: bool) -> DataNode:
    """Take planes that were computed, rather than read, the way of an augmented batch: the same operators."""
    plane = fn.external_source(name="plane", device="gpu" if gpu else "cpu", batch=True, layout="HWC")
    start, end, matrix = (fn.external_source(name=name, batch=True) for name in ("start", "end", "matrix"))
    return _plane(plane, image_size, start, end, [matrix])


def _decoded_crop(encoded: DataNode, device: str, image_size: int, start: DataNode, end: DataNode) -> DataNode:
    """Decode the crop and as much around it as the resize looks at; the pixels are those of the whole image's crop."""
    shape = fn.cast(fn.peek_image_shape(encoded)[0:2], dtype=types.FLOAT)
    reach = math.max((end - start) * shape / image_size, 1.0) + 1.0
    first = math.floor(math.max(start * shape - reach, 0.0))
    last = math.ceil(math.min(end * shape + reach, shape))
    part = fn.decoders.image_slice(
        encoded,
        device=device,
        start=fn.cast(first, dtype=types.INT32),
        end=fn.cast(last, dtype=types.INT32),
        axes=[0, 1],
        output_type=types.RGB,
    )
    extent = last - first
    return _resized(part, image_size, (start * shape - first) / extent, (end * shape - first) / extent)


def _resized(
    image: DataNode, image_size: int, start: DataNode | Sequence[float], end: DataNode | Sequence[float]
) -> DataNode:
    return fn.resize(
        image,
        size=[image_size, image_size],
        roi_start=start,
        roi_end=end,
        roi_relative=True,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )


def _normalised(image: DataNode, spec: Preprocessing) -> DataNode:
    return fn.crop_mirror_normalize(
        image,
        mean=[255 * m for m in spec.mean],
        std=[255 * s for s in spec.std],
        dtype=types.FLOAT,
        output_layout="CHW",
    )


def _plane(plane: DataNode, image_size: int, start: DataNode, end: DataNode, matrix: Sequence[DataNode]) -> DataNode:
    """Crop, resize and warp with nearest neighbours; `(1, S, S)` float32 in {0, 1}."""
    plane = fn.resize(
        plane,
        size=[image_size, image_size],
        roi_start=start,
        roi_end=end,
        roi_relative=True,
        interp_type=types.INTERP_NN,
    )
    if matrix:
        plane = fn.warp_affine(plane, matrix=matrix[0], interp_type=types.INTERP_NN, fill_value=0, inverse_map=True)
    return fn.transpose(fn.cast(plane > 127, dtype=types.FLOAT), perm=[2, 0, 1])
