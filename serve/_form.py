"""The forms in which networks are exported; imports no engine."""

from __future__ import annotations

from dataclasses import dataclass

WEIGHTS = ("float32", "float16")


@dataclass(frozen=True)
class Form:
    """In what form the networks are written.

    Attributes:
        weights: `float32`, or `float16` for files of half the size that still compute in float32.
        fused: also as one graph, which a GPU answers fastest from; without it the repository is half as large.
    """

    weights: str = "float32"
    fused: bool = True
