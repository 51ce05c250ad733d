"""A stage as a run of an MLflow server: its settings, and its measures by epoch."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from mbdcnn import config as configuration
from mbdcnn.config import Config
from mbdcnn.errors import UserError
from mbdcnn.files import replacing

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_RUN_ID = "mlflow-run-id.txt"
_PARAMETERS_A_CALL = 100  # the server's limit


def is_wanted() -> bool:
    """Whether MLflow's own setting names a server.

    Raises:
        UserError: it does, and the package is not there.
    """
    if not os.environ.get(URI):
        return False
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(f"{URI} is set, but mlflow is not installed; pip install 'mbdcnn[mlflow]', or unset it.")
    return True


class Tracked:
    """The run that a stage is on the server of `MLFLOW_TRACKING_URI`, in the experiment of `MLFLOW_EXPERIMENT_NAME`.

    A stage that goes on is the same run again. Every call waits for the server: make them off the training's thread.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Begin the run, or go on with it.

        Args:
            folder: of the stage; remembers the run.
            config: becomes the run's parameters, by dotted name.

        Raises:
            Exception: of MLflow's many, where the server does not answer or refuses.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers of each use
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = MlflowClient()
        remembered = folder / _RUN_ID
        try:
            self._id = self._client.get_run(remembered.read_text().strip()).info.run_id
            self._client.update_run(self._id, status="RUNNING")
        except (FileNotFoundError, MlflowException):  # a new run, or another server than last time
            name = "/".join(folder.resolve().parts[-2:])
            self._id = self._client.create_run(self._experiment(), run_name=name).info.run_id
            with replacing(remembered) as part:
                part.write_text(self._id + "\n")
        parameters = (Param(name, str(value)) for name, value in configuration.flatten(config).items())
        while some := list(islice(parameters, _PARAMETERS_A_CALL)):
            self._client.log_batch(self._id, params=some)

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Send the numbers of an epoch, counted from 1."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, epoch) for name, value in row.items()])

    def end(self, over: bool) -> None:
        """Say that the stage is over, or was interrupted."""
        self._client.set_terminated(self._id, "FINISHED" if over else "KILLED")

    def _experiment(self) -> str:
        name = os.environ.get(EXPERIMENT) or "mbdcnn"
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))
