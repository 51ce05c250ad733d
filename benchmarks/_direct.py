"""The exported networks through ONNX Runtime in this process: the bound that a server is measured against."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from mbdcnn.preprocessing import MASK_THRESHOLD, Preprocessing, decode_image, prepare, restore

_ORDER = ("coarse_sn", "mask_cn", "cam", "enhanced_sn")


class Direct:
    """The whole chain, bytes to PNG, with the session options of the served models; callable from several threads.

    Args:
        repository: what `mbdcnn export` wrote.
    """

    def __init__(self, repository: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._sessions = []
        for name in _ORDER:
            newest = max((repository / name).glob("*/model.onnx"), key=lambda path: int(path.parent.name))
            self._sessions.append(
                onnxruntime.InferenceSession(str(newest), options, providers=["CPUExecutionProvider"])
            )
        spec = json.loads((repository / "manifest.json").read_text())["preprocessing"]
        self._spec = Preprocessing(spec["image_size"], tuple(spec["mean"]), tuple(spec["std"]))

    def __call__(self, data: bytes) -> tuple[np.ndarray, bytes]:
        """Probabilities `(n,)` and the lesion's PNG at the image's own size."""
        image = decode_image(data)
        tensors: Mapping[str, np.ndarray] = {"image": prepare(image, self._spec)[None]}
        for session in self._sessions:
            feed = {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}
            names = [tensor.name for tensor in session.get_outputs()]
            tensors = {**tensors, **dict(zip(names, session.run(names, feed), strict=True))}
        lesion = restore(tensors["lesion"][0, 0], *image.shape[:2]) > MASK_THRESHOLD
        buffer = io.BytesIO()
        Image.fromarray(lesion.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=1)
        return tensors["probabilities"][0], buffer.getvalue()
