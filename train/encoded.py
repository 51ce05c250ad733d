"""Encoded files as DALI gets them; the few that only Pillow can read are given to DALI in another encoding."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from PIL import Image
from tqdm import tqdm

from mbdcnn.errors import UserError
from mbdcnn.preprocessing import ImageError, decode_image, decode_mask


class EncodedFiles:
    """Reads encoded files.

    The index has decoded every file with Pillow. DALI refuses one in a few hundred damaged files that Pillow reads (a
    broken marker, surplus bytes), and its pipeline dies of it.
    """

    def __init__(self) -> None:
        self._reencoded: dict[Path, np.ndarray] = {}

    def read(self, path: Path) -> np.ndarray:
        """A file's bytes, or its pixels as PNG where DALI refused the file; `(N,)` uint8.

        Raises:
            UserError: it cannot be read.
        """
        if path in self._reencoded:
            return self._reencoded[path]
        try:
            return np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise _changed(path, f"cannot be read ({error.strerror})") from None

    def reencode_refused(self, images: Iterable[Path], masks: Iterable[Path], device: torch.device) -> bool:
        """Find the files that DALI refuses and keep them as PNG from now on, in memory.

        Args:
            images: to try.
            masks: to try, as grey.
            device: that decodes the images; masks are decoded on the CPU.

        Returns:
            Whether there were any.

        Raises:
            UserError: Pillow refuses one too: it has changed since it was indexed.
        """
        cpu = torch.device("cpu")
        found = self._reencode(images, device, types.RGB, decode_image)
        found += self._reencode(masks, cpu, types.GRAY, lambda data: decode_mask(data).astype(np.uint8) * 255)
        for path in found:
            tqdm.write(f"{path} is damaged: DALI refuses it, Pillow reads it; Pillow's pixels are used", sys.stderr)
        return bool(found)

    def _reencode(
        self,
        paths: Iterable[Path],
        device: torch.device,
        kind: types.DALIImageType,
        decode: Callable[[bytes], np.ndarray],
    ) -> list[Path]:
        found = []
        for path in dict.fromkeys(paths):
            data = self.read(path)
            if path in self._reencoded or _decodes(data, device, kind):
                continue
            try:
                pixels = decode(data.tobytes())
            except ImageError as error:
                raise _changed(path, f"cannot be used: {error}") from None
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
            self._reencoded[path] = np.frombuffer(buffer.getvalue(), np.uint8)
            found.append(path)
        return found


def _changed(path: Path, reason: str) -> UserError:
    return UserError(f"{path} {reason}, although the index of this run could: restore the file and start again.")


def _decodes(data: np.ndarray, device: torch.device, kind: types.DALIImageType) -> bool:
    gpu = device.type == "cuda"
    try:
        pipeline = _decode_graph(
            data=data,
            kind=kind,
            gpu=gpu,
            batch_size=1,
            num_threads=1,
            device_id=device.index or 0 if gpu else None,
            prefetch_queue_depth=1,
        )
        pipeline.build()
        pipeline.run()
    except RuntimeError:
        return False
    return True


@pipeline_def
def _decode_graph(data: np.ndarray, kind: types.DALIImageType, gpu: bool) -> DataNode:
    encoded = fn.external_source(source=lambda: [data], batch=True)
    fn.peek_image_shape(encoded)
    return fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=kind)
