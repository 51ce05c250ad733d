"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write beside `path`; it takes that name when the block ends well.

    A reader sees the old file or the new one, never half of one.
    """
    part = path.with_name(path.name + ".part")
    yield part
    part.replace(path)
