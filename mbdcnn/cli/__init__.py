"""The command `mbdcnn`: every verb, and the only package that knows all rooms.

Rooms are imported by the verb that needs them, so that each works without the others' packages. With `--json` a verb
prints one document on standard output; everything else goes to standard error. What a user can mend ends as one
sentence and exit code 2.
"""

from __future__ import annotations

import os
import sys

import click

from mbdcnn import __version__
from mbdcnn.cli.data import data
from mbdcnn.cli.serving import card, export, predict, serve
from mbdcnn.cli.training import adopt, average, calibrate, evaluate, reproduce, status, train
from mbdcnn.cli.tuning import tune
from mbdcnn.errors import Stopped, UserError, explain

# Waiting OpenMP threads sleep instead of spinning: DALI, the networks and the user's other work share the cores, and
# on a busy machine spinning threads cost up to four times the time. Read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# package -> the extra that brings it, to name the one that is missing; the room serve names its own
_EXTRAS = {"nvidia": "train", "ray": "tune", "optuna": "tune"}
# verb -> what of its work an interruption leaves whole
_RESUMABLE = {("train",): "checkpoint", ("reproduce",): "checkpoint", ("data", "prepare"): "image"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mbdcnn")
@click.option("--local_rank", hidden=True, expose_value=False)  # which deepspeed adds, and also says as LOCAL_RANK
def cli() -> None:
    """MB-DCNN for dermoscopy: data, training, tuning, evaluation, calibration, the paper's experiments, serving."""


for _verb in (data, train, average, adopt, status, evaluate, calibrate, reproduce, tune, export, card, serve, predict):
    cli.add_command(_verb)


def main() -> None:
    """Entry of the command; turns what a user can mend, and Ctrl-C, into one line."""
    try:
        _check_limits()
        cli(prog_name="mbdcnn", standalone_mode=False)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRAS:
            raise
        click.echo(f"mbdcnn: {error.name} is not installed; pip install 'mbdcnn[{_EXTRAS[package]}]'.", err=True)
        sys.exit(2)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not error.filename:
            raise
        click.echo(f"mbdcnn: {_rank()}{explain(error)}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        if _rank():
            click.echo(f"mbdcnn: {_rank()}{error.format_message()}", err=True)
        else:
            error.show()
        sys.exit(2)
    except Stopped as stopped:
        if not _rank():
            click.echo(f"mbdcnn: {stopped}", err=True)
        sys.exit(128 + stopped.signal)
    except (click.Abort, KeyboardInterrupt):
        after = next((after for verb, after in _RESUMABLE.items() if tuple(sys.argv[1:3])[: len(verb)] == verb), None)
        went_on = f"; the same command goes on after the last whole {after}" if after else ""
        click.echo(f"mbdcnn: stopped{went_on}.", err=True)
        sys.exit(130)


def _rank() -> str:
    """Which of a launcher's processes speaks; nothing for the first, which speaks for all."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f"rank {rank}: "


def _check_limits() -> None:
    """Refuse a limit that is no number before the first module reads it (`mbdcnn.preprocessing`)."""
    for name, default, most in (("MBDCNN_MAX_MEGAPIXELS", "64", 178), ("MBDCNN_MAX_ENCODED_MB", "32", 1024)):
        limit = os.environ.get(name, default)
        if not limit.isdigit() or not 1 <= int(limit) <= most:  # Pillow itself refuses more than 178 megapixels
            raise UserError(f"{name} is {limit}; set it to a whole number from 1 to {most}.")
