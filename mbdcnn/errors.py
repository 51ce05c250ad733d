"""The one exception that means: the user can mend this."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class UserError(Exception):
    """A mistake that its user can mend.

    The message is one sentence that names the file or field and the mend. The command line prints it without a
    traceback and exits with code 2.
    """


class Stopped(BaseException):
    """Work was stopped from outside, and what is done is kept; no `except Exception` takes it for a failure.

    Attributes:
        signal: the number of the signal that asked for it.
    """

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.signal = signal


def explain(error: UserError | OSError) -> str:
    """The sentence of a user's error, or of what the operating system refused."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; name another place, or mend its permissions or space."
    return str(error)


def unknown(kind: str, name: str, known: Collection[str]) -> UserError:
    """The refusal of a name that is none of those known, with the near one and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(f"There is no {kind} {name}; {hint}The {kind}s are {', '.join(known)}.")
