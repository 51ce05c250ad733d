"""Does a model repository hold exactly what its export wrote? For start-up checks: `python -m serve.verify REPO`.

Needs no package but this one, so that it answers within a moment. Checksums find what was damaged, lost or put
there by mistake; who may write to the repository may also write its manifest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError

MANIFEST = "manifest.json"
FORMAT = "mbdcnn-model-repository"
_EXPORT = "write the repository again with `mbdcnn export`"


def verify(repository: Path) -> dict[str, Any]:
    """Compare every file with the checksum in `manifest.json`.

    Returns:
        The manifest.

    Raises:
        UserError: naming the first file that is missing, differs, or is in no manifest.
    """
    manifest = read_manifest(repository)
    files = manifest["files"]
    for name, digest in files.items():
        try:
            found = sha256(repository / name)
        except OSError as error:
            raise UserError(f"{repository / name} cannot be read ({error.strerror}); {_EXPORT}.") from None
        if found != digest:
            raise UserError(f"{repository / name} is not as it was exported (its SHA-256 differs); {_EXPORT}.")
    for path in files_in(repository):
        name = str(path.relative_to(repository))
        if name not in files and name != MANIFEST:
            raise UserError(f"{path} was not written by the export; remove it, or {_EXPORT}.")
    return manifest


def read_manifest(repository: Path) -> dict[str, Any]:
    """The `manifest.json` of a model repository.

    Raises:
        UserError: there is none, or it is no such manifest.
    """
    path = repository / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT and isinstance(manifest["files"], dict):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is missing or damaged, so {repository} cannot be checked; {_EXPORT}.")


def files_in(folder: Path) -> list[Path]:
    """Every file, except what Python may have cached beside the models."""
    return [p for p in sorted(folder.rglob("*")) if not p.is_dir() and "__pycache__" not in p.parts]


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def program(module: str, work: Callable[[Path], str], arguments: list[str]) -> int:
    """A program that takes a repository, prints a sentence and exits with 0, or with 2 and one on standard error."""
    if len(arguments) != 1:
        print(f"usage: python -m {module} REPOSITORY", file=sys.stderr)
        return 2
    try:
        print(work(Path(arguments[0])))
    except UserError as error:
        print(f"{module}: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: list[str]) -> int:
    """The program; 0 when everything fits."""

    def work(repository: Path) -> str:
        manifest = verify(repository)
        return f"{repository}: version {manifest.get('version', 1)}, {len(manifest['files'])} files as exported."

    return program("serve.verify", work, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
