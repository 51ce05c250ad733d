"""The trained networks that come with the package, as a model repository: `python -m serve.released REPO` copies it.

`mbdcnn serve` and `mbdcnn predict` take it where no other is named. A copy takes further versions, as any repository.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mbdcnn.errors import UserError
from serve._versions import current, replacement
from serve.verify import program, verify

RELEASED = Path(__file__).parent / "model_repository"


def place(repository: Path) -> int:
    """Copy the released networks to where there is no repository yet.

    Returns:
        Their version.

    Raises:
        UserError: there is one, the place holds something else or cannot be written, or the released files are damaged.
    """
    repository = repository.absolute()
    if current(repository) is not None:
        raise UserError(f"{repository} is a model repository already; name a new folder, or export a run to it.")
    manifest = verify(RELEASED)
    with replacement(repository) as building:
        shutil.copytree(RELEASED, building, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return int(manifest["version"])


def main(arguments: list[str]) -> int:
    """The program; 0 when done."""

    def work(repository: Path) -> str:
        return f"{repository}: version {place(repository)}, the released networks."

    return program("serve.released", work, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
