"""JPEGs through NVIDIA DALI, on a GPU where the instance has one; copied by the export beside preprocess.

Headers are still checked by Pillow before anything is decoded, and what DALI refuses or is not asked about (PNG, BMP,
CMYK, what is cut off) is left to Pillow, so that limits, orientation and sentences stay the same. The pixels do not:
they differ by less than half a grey level on average, by three at most, and by eight in the outermost row.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
from images import Reader  # the export's copies, beside this file
from nvidia.dali import fn, pipeline_def, types
from preprocessing import Preprocessing, open_image

_ORIENTATION = 0x0112
_ON_THEIR_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_END_OF_IMAGE = b"\xff\xd9"


@dataclasses.dataclass(frozen=True)
class DaliReader(Reader):
    """A `Reader` that has DALI decode, squash and normalise.

    Attributes:
        device: the GPU's number; None for the CPU.
    """

    device: int | None = None

    def read(self, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        """As `Reader.read`."""
        self.check_bytes(data)
        header = open_image(data, self.max_pixels)
        if header.format != "JPEG" or header.mode not in ("RGB", "L") or _END_OF_IMAGE not in data:
            return super().read(data)
        try:
            turned = header.getexif().get(_ORIENTATION) in _ON_THEIR_SIDE
            image = _run(_pipeline(self.spec, self.device), data)
        except Exception:  # DALI's errors are RuntimeErrors, a hostile EXIF block's are anything
            _pipeline.cache_clear()  # one that failed once fails always
            return super().read(data)
        return image, ((header.width, header.height) if turned else (header.height, header.width))


@cache
def _pipeline(spec: Preprocessing, device: int | None) -> object:
    """This process's pipeline."""
    made = _graph(spec, device is not None, device_id=device, prefetch_queue_depth=1)
    made.build()
    return made


@pipeline_def(batch_size=1, num_threads=1)
def _graph(spec: Preprocessing, gpu: bool) -> object:
    """Decode upright, squash with an antialiased triangle filter and normalise, as training's validation does."""
    encoded = fn.external_source(name="encoded", device="cpu")
    image = fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)
    side = spec.image_size
    image = fn.resize(image, size=[side, side], interp_type=types.INTERP_LINEAR, antialias=True)
    mean, std = ([255 * value for value in values] for values in (spec.mean, spec.std))
    return fn.crop_mirror_normalize(image, mean=mean, std=std, dtype=types.FLOAT, output_layout="CHW")


def _run(pipeline: object, data: bytes) -> np.ndarray:
    pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8)])
    (images,) = pipeline.run()
    return np.array(images.as_cpu().at(0))
