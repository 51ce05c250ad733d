"""Go back to the version before: `python -m serve.rollback REPO`.

A server that watches the repository takes it as it takes any other, and others at their next start.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError
from serve._versions import carry_over, current, replacement
from serve.export import finish
from serve.verify import program


def roll_back(repository: Path) -> dict[str, Any]:
    """Drop the newest version of every model, and serve the one before with its own configuration.

    Returns:
        The repository's manifest.

    Raises:
        UserError: not a model repository, there is no earlier version, or it is damaged or laid out otherwise; nothing
            was changed.
    """
    repository = repository.absolute()
    _earlier(repository)
    with replacement(repository) as building:
        before = _earlier(repository)  # again, now that no export can add one
        if not carry_over(repository, before, building):
            raise UserError(
                f"Version {before} in {repository} is damaged, or of another layout; export the run that you want."
            )
        return finish(building, before, [before])


def _earlier(repository: Path) -> int:
    manifest = current(repository)
    if manifest is None or len(manifest.get("versions", [])) < 2:
        raise UserError(f"{repository} holds no earlier version to go back to; export the one that you want.")
    return int(manifest["versions"][-2])


def main(arguments: list[str]) -> int:
    """The program; 0 when done."""

    def work(repository: Path) -> str:
        return f"{repository}: version {roll_back(repository)['version']}; restart its server, unless it watches."

    return program("serve.rollback", work, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
