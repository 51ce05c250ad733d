"""What the verbs share: their options, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

FOLDER = click.Path(path_type=Path)
PROTOCOL = click.Choice(["single", "authors"])
_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")(command)


def nproc_option(command: _Command) -> _Command:
    """`--nproc`."""
    words = "Processes: a number, or auto (one per GPU, else one)."
    return click.option("--nproc", default="auto", show_default=True, help=words)(command)


def prepared_option(command: _Command) -> _Command:
    """`--prepared`."""
    words = "Folder of prepared copies to train on, or none for the originals.  [default: DATA/prepared if it fits]"
    return click.option("--prepared", metavar="FOLDER", help=words)(command)


def answer(document: object, as_json: bool, text: str) -> None:
    """The verb's result: the document for programs, or the text for people."""
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(text, err=True)


def warn_of_leakage(leaks: Sequence[Mapping[str, Any]], listed_in: str) -> None:
    """Say loudly on standard error which pairs of images leak between splits, if any do."""
    from mbdcnn.data.leakage import leakage_warning

    if leaks:
        click.secho(leakage_warning(leaks, listed_in), err=True, fg="red", bold=True)
