"""Go back to the version before: `python -m serve.rollback REPO`; a server serves it after its next start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError
from serve._versions import carry_over, current, replacement
from serve.export import finish


def roll_back(repository: Path) -> dict[str, Any]:
    """Drop the newest version of every model, and serve the one before with its own configuration.

    Returns:
        The repository's manifest.

    Raises:
        UserError: not a model repository, there is no earlier version, or it is damaged; nothing was changed.
    """
    repository = repository.absolute()
    manifest = current(repository)
    if manifest is None or len(manifest.get("versions", [])) < 2:
        raise UserError(f"{repository} holds no earlier version to go back to; export the one that you want.")
    with replacement(repository) as building:
        before = manifest["versions"][-2]
        if not carry_over(repository, before, building):
            raise UserError(f"Version {before} in {repository} is damaged; export the one that you want.")
        return finish(building, before, [before])


def main(arguments: list[str]) -> int:
    """The program; 0 when done, 2 with one sentence on standard error otherwise."""
    if len(arguments) != 1:
        print("usage: python -m serve.rollback REPOSITORY", file=sys.stderr)
        return 2
    try:
        manifest = roll_back(Path(arguments[0]))
    except UserError as error:
        print(f"serve.rollback: {error}", file=sys.stderr)
        return 2
    print(f"{arguments[0]}: version {manifest['version']}; restart its server.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
