"""Tensors of a checkpoint: safetensors files, which hold nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mbdcnn.errors import UserError
from mbdcnn.files import naming


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name.

    Raises:
        OSError: with the file's name, when the disk refuses.
    """
    with naming(path):
        path.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        raise damaged(path) from None


def damaged(path: Path) -> UserError:
    """The refusal of a file in a checkpoint's folder."""
    return UserError(f"{path} is damaged; delete the folder {path.parent} to go on from the checkpoint before it.")
