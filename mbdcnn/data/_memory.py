"""What opening a data folder's files has shown, kept between calls, so that only what has changed is decoded again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_cache_path

from mbdcnn.files import replacing
from mbdcnn.preprocessing import MAX_PIXELS

_FORMAT = 1  # raise when a file that was usable may no longer be, or looks otherwise
_SETTLED = 2.0  # seconds; a file changed later than that before it was read could change again unnoticed by its times


@dataclass(frozen=True)
class Opened:
    """What decoding a file showed.

    Attributes:
        height: in pixels, as displayed.
        width: in pixels, as displayed.
        sha256: of the file's bytes.
        pixels: SHA-256 of the decoded image; None unless asked for.
    """

    height: int
    width: int
    sha256: str
    pixels: str | None = None


class Memory:
    """The usable files of one data folder, in the user's cache folder.

    A file is taken for unchanged while its size, inode, and times of change (of content and of status, to the
    nanosecond) are the same. Where the cache cannot be read or written, everything is opened anew.
    """

    def __init__(self, root: Path) -> None:
        """Read what is known of a folder."""
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self._file = user_cache_path("mbdcnn") / "files" / f"{name}.json"
        self._known: dict[str, tuple[list[int], Opened]] = {}
        self._seen: dict[str, tuple[list[int], Opened]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            document = json.loads(self._file.read_text())
            if document["format"] == _FORMAT:
                self._known = {key: (state, Opened(**opened)) for key, (state, opened) in document["files"].items()}

    def recall(self, key: str, path: Path, pixels: bool) -> Opened | None:
        """What a file showed before, None when it has changed or was not looked at as closely.

        Args:
            key: names the file and its use.
            path: of the file.
            pixels: whether its pixels' hash is wanted.
        """
        state, opened = self._known.get(key, (None, None))
        if state is None or opened is None or state != file_state(path) or (pixels and opened.pixels is None):
            return None
        if opened.height * opened.width > MAX_PIXELS:  # the limit may have been lowered
            return None
        self._seen[key] = state, opened
        return opened

    def keep(self, key: str, path: Path, before: list[int] | None, opened: Opened) -> None:
        """Remember what a file showed, unless it may have changed since `before`, its state before it was read."""
        if before is not None and before == file_state(path) and max(before[2:]) < 1e9 * (time.time() - _SETTLED):
            self._seen[key] = before, opened

    def save(self) -> None:
        """Write what this call has seen; what is no longer in the folder is forgotten."""
        if self._seen == self._known:
            return
        files = {key: (state, asdict(opened)) for key, (state, opened) in self._seen.items()}
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as part:
                part.write_text(json.dumps({"format": _FORMAT, "files": files}))


def file_state(path: Path) -> list[int] | None:
    """What tells a changed file from an unchanged one; None for one that cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
