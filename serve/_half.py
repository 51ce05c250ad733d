"""Weights stored as float16 in graphs that compute in float32: half the size, for networks that travel in git."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_FEW = 1024  # smaller tensors, biases and batch norm's among them, would save nothing


def halve_weights(model: onnx.ModelProto) -> None:
    """Store a graph's large float32 tensors as float16, each behind a Cast that the runtime folds when it loads.

    A tensor with a value that float16 cannot hold stays as it is. A weight changes by at most 1 part in 2048, or by
    3e-8 where it is below 6e-5; what that does to the answers, the parity check says.
    """
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _FEW or not np.abs(values).max() <= np.finfo(np.float16).max:
            continue
        name, half = tensor.name, f"{tensor.name}_float16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(onnx.helper.make_node("Cast", [half], [name], name=f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
