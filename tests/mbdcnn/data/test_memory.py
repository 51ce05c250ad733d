"""A data set that has not changed is not decoded again; one that has is."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from mbdcnn.data import _check, _memory
from mbdcnn.data.index import index_folder
from mbdcnn.preprocessing import decode_image, decode_mask


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Counts the files that are decoded; files need not be old to be remembered."""
    counts: list[int] = []

    def count(decode: Any) -> Any:
        def counted(data: bytes) -> Any:
            counts.append(len(data))
            return decode(data)

        counted.__name__ = decode.__name__
        return counted

    monkeypatch.setattr(_check, "decode_image", count(decode_image))
    monkeypatch.setattr(_check, "decode_mask", count(decode_mask))
    monkeypatch.setattr(_memory, "_SETTLED", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return counts


def seen(folder: Any, decoded: list[int]) -> tuple[int, Any]:
    """How many files an index decodes, and what it finds."""
    decoded.clear()
    time.sleep(0.02)  # the clock of files is coarse
    manifest = index_folder(folder.root)
    return len(decoded), manifest


def test_only_what_changed_is_decoded_again(folder: Any, decoded: list[int]) -> None:
    folder.pairs()
    first, manifest = seen(folder, decoded)
    assert first == 6
    again, same = seen(folder, decoded)
    assert (again, same) == (0, manifest)

    data = bytearray(folder.image("ISIC_0000002").read_bytes())  # written anew with the same bytes
    changed, same = seen(folder, decoded)
    assert (changed, same.fingerprint) == (1, manifest.fingerprint)

    path = folder.root / manifest.items[1].image
    before = path.stat()
    data[-3] ^= 1  # as long, and made to look as old
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed, other = seen(folder, decoded)
    assert changed == 1
    assert other.items[1].sha256 != manifest.items[1].sha256


def test_a_fault_is_looked_at_each_time_and_goes_when_it_is_mended(folder: Any, decoded: list[int]) -> None:
    folder.pairs()
    path = folder.root / seen(folder, decoded)[1].items[0].image
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    for _ in range(2):
        count, manifest = seen(folder, decoded)
        assert count == 1  # the broken one, and not its mask
        assert [fault.path for fault in manifest.faults] == [f"{path.parent.name}/{path.name}"]
    path.write_bytes(whole)
    assert len(seen(folder, decoded)[1].items) == 3


def test_what_was_changed_a_moment_ago_is_not_trusted(
    folder: Any, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_memory, "_SETTLED", 1000.0)
    folder.pairs()
    assert [seen(folder, decoded)[0] for _ in range(2)] == [6, 6]


def test_a_lower_limit_of_pixels_counts(folder: Any, decoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    folder.pairs()
    seen(folder, decoded)
    monkeypatch.setattr(_memory, "MAX_PIXELS", 24 * 16 - 1)
    assert seen(folder, decoded)[0] == 6


@pytest.mark.parametrize(
    "damage", ["{", '{"format": 1}', '{"format": 1, "files": {"a": [1]}}', '{"format": 0, "files": {}}']
)
def test_a_damaged_memory_is_forgotten(folder: Any, decoded: list[int], tmp_path: Path, damage: str) -> None:
    folder.pairs()
    seen(folder, decoded)
    (file,) = (tmp_path / "cache" / "mbdcnn" / "files").iterdir()
    file.write_text(damage)
    assert [seen(folder, decoded)[0] for _ in range(2)] == [6, 0]


def test_a_cache_that_cannot_be_written_costs_time_alone(folder: Any, decoded: list[int], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    folder.pairs()
    assert [seen(folder, decoded)[0] for _ in range(2)] == [6, 6]


def test_pixels_are_hashed_when_they_come_to_be_needed(folder: Any, decoded: list[int]) -> None:
    """Extra images are compared by their pixels, which an index without any has not hashed."""
    folder.pairs()
    seen(folder, decoded)
    folder.image("ISIC_0000009", "extra")
    folder.labels([["ISIC_0000009", "0.0", "0.0"]], "extra")
    assert [seen(folder, decoded)[0] for _ in range(2)] == [4, 0]
