"""A run's calibration on disk: `calibration.json`, for people and cards too, and the tensors beside it."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from mbdcnn.doubt import TENSORS, Calibration, Familiarity
from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.layout import WEIGHTS

CALIBRATION = "calibration.json"
_TENSORS = "calibration.safetensors"
_FORMAT = 2


def save(run: Path, document: dict[str, Any], familiarity: Familiarity) -> dict[str, Any]:
    """Write a run's calibration.

    Args:
        run: run folder.
        document: what was measured; its `temperature` counts, and how many `views` of an image the networks see.
        familiarity: what the training images look like.

    Returns:
        What is in `calibration.json`: the document, and the weights that it was made for.
    """
    tensors = serialise({name: familiarity.get_buffer(name).contiguous() for name in TENSORS})
    with replacing(run / _TENSORS) as part:
        part.write_bytes(tensors)
    digest = hashlib.sha256(tensors).hexdigest()
    whole = {"format": _FORMAT, **document, "weights": _digests(run), "tensors": digest}
    with replacing(run / CALIBRATION) as part:
        part.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return whole


def read(run: Path) -> dict[str, Any] | None:
    """What is in a run's `calibration.json`; None without one.

    Raises:
        UserError: it is damaged, or was made for other weights.
    """
    path = run / CALIBRATION
    if not path.is_file():
        return None
    again = f"run `mbdcnn calibrate --run {run} --data DIR` again, or delete it"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        temperature = document["temperature"]
        whole = document["format"] == _FORMAT and math.isfinite(temperature) and temperature > 0
        made_for = document["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        whole, made_for, document = False, None, {}
    if not whole:
        raise UserError(f"{path} is damaged, or of another version of this program; {again}.")
    if made_for != _digests(run):
        raise UserError(f"{path} was made for other weights than the run has now; {again}.")
    return document


def load(run: Path) -> Calibration:
    """A run's calibration, to give to `MutualBootstrap`; one that changes nothing where the run has none.

    Raises:
        UserError: it is damaged, or was made for other weights.
    """
    document = read(run)
    if document is None:
        return Calibration()
    path = run / _TENSORS
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != document["tensors"]:
            raise ValueError
        tensors = load_file(path)
        familiarity = Familiarity(*(tensors[name] for name in TENSORS))
    except (OSError, SafetensorError, KeyError, ValueError):
        raise UserError(f"{path} is missing or damaged; run `mbdcnn calibrate --run {run} --data DIR` again.") from None
    return Calibration(document["temperature"], familiarity, document["views"])


def _digests(run: Path) -> dict[str, str]:
    """SHA-256 of the weights of each finished stage, of every round."""
    files = sorted([*run.glob(f"*/{WEIGHTS}"), *run.glob(f"round-*/*/{WEIGHTS}")])
    return {str(file.parent.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
