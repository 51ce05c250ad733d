"""The run folder: where each stage leaves its weights, settings and scores, and how the next one finds them."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

import mbdcnn
from mbdcnn import calibration
from mbdcnn import config as configuration
from mbdcnn.config import STAGES, Config
from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.layout import CHECKPOINTS as CHECKPOINTS
from mbdcnn.layout import CONFIG, METRICS, WEIGHTS, is_finished, round_folder
from mbdcnn.layout import LOG as LOG
from mbdcnn.layout import MANIFEST as MANIFEST
from mbdcnn.lineage import needs
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap

NETWORKS: dict[str, type[CoarseSN] | type[MaskCN]] = {"coarse": CoarseSN, "mask": MaskCN, "enhanced": EnhancedSN}


def begun_with(run: Path) -> Config | None:
    """The settings of a run's latest stage, None where none has begun."""
    files = [run / stage / CONFIG for stage in reversed(STAGES)]
    return next((configuration.load(file) for file in files if file.is_file()), None)


def require_stage(run: Path, stage: str) -> None:
    """Refuse to go on without a stage's result.

    Raises:
        UserError: the run folder or the stage is missing.
    """
    if not run.is_dir():
        raise UserError(f"There is no run folder {run}; train one with `mbdcnn train all --run {run} --data DIR`.")
    if not is_finished(run, stage):
        raise UserError(
            f"{run} has no finished stage {stage}; run `mbdcnn train {stage} --run {run} --data DIR` first."
        )


def write_json(path: Path, document: object) -> None:
    """Write a document, atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=2) + "\n")


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's tensors as safetensors, atomically."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with replacing(path) as part:
        # written here rather than by safetensors, whose files only their owner can read: a server may be another user
        part.write_bytes(serialise(tensors))


def load_weights(network: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote.

    Raises:
        UserError: unreadable, or of another network; the first missing tensor is named.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a readable weights file ({type(error).__name__}).") from None
    own = network.state_dict()
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape] + [k for k in state if k not in own]
    if wrong:
        names = ", ".join(wrong[:3])
        raise UserError(f"{path} does not fit the config.yaml beside it: {names} missing, extra or of another shape.")
    network.load_state_dict(state)


def load_stage(run: Path, stage: str) -> nn.Module:
    """A stage's trained network, in evaluation mode.

    Raises:
        UserError: the stage is missing or its files do not fit together.
    """
    require_stage(run, stage)
    network = NETWORKS[stage](configuration.load(run / stage / CONFIG).network)
    load_weights(network, run / stage / WEIGHTS)
    return network.eval()


def load_networks(run: Path, *, calibrated: bool = True) -> tuple[MutualBootstrap, Config]:
    """All trained networks of a run, in evaluation mode, and the settings of the last stage (see `load_finished`).

    Raises:
        UserError: a stage is missing or its files do not fit together.
    """
    for stage in STAGES:
        require_stage(run, stage)
    return load_finished(run, calibrated=calibrated)


def load_finished(run: Path, rounds: int | None = None, *, calibrated: bool = True) -> tuple[MutualBootstrap, Config]:
    """The networks of the stages that a run has finished, calibrated where it is, and the settings of the last one.

    They are in evaluation mode.

    Args:
        run: run folder.
        rounds: of the bootstrapping to load at most; None for all that are finished.
        calibrated: as `mbdcnn calibrate` found, where it was called.

    Raises:
        UserError: no stage is finished, one of those that a finished one learnt from is missing, or files, the
            calibration's too, do not fit together.
    """
    finished = [stage for stage in STAGES if is_finished(run, stage)]
    if not finished:
        require_stage(run, STAGES[0])
    config = configuration.load(run / finished[-1] / CONFIG)
    for stage in needs(config, finished[-1]):
        require_stage(run, stage)
    coarse_sn, mask_cn, enhanced_sn = (_stage_if(stage in finished, run, stage) for stage in STAGES)
    further: list[Any] = []
    for number in itertools.count(2) if rounds is None else range(2, rounds + 1):
        folder = round_folder(run, number)
        if not is_finished(folder, STAGES[-1]):
            break
        further.append([load_stage(folder, stage) for stage in STAGES[1:]])
    found = calibration.load(run) if calibrated else None
    return MutualBootstrap(coarse_sn, mask_cn, enhanced_sn, further, found).eval(), config


def _stage_if(wanted: bool, run: Path, stage: str) -> Any:
    return load_stage(run, stage) if wanted else None


def provenance(run: Path) -> dict[str, Any]:
    """What made a run, for the artefacts that are made from it.

    Returns:
        `run`, its name; `code_version`; `stages`: for each that is finished its `metrics.json`, and `settings`.
    """
    stages = {
        s: {**_read_metrics(run / s / METRICS), "settings": _settings(run, s)} for s in STAGES if is_finished(run, s)
    }
    return {"run": run.resolve().name, "code_version": code_version(), "stages": stages}


def _settings(run: Path, stage: str) -> dict[str, object]:
    """A stage's settings by dotted name; of a file or a run the name alone, without the maker's folders."""
    settings = configuration.flatten(configuration.load(run / stage / CONFIG))
    settings |= {name: Path(str(settings[name])).name for name in ("network.weights", "bootstrap.start_run")}
    others = tuple(f"{other}." for other in STAGES if other != stage)
    return {name: value for name, value in settings.items() if not name.startswith(others)}


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text())
        metrics["best"][metrics["score"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; delete it and train that stage again, which takes no time.") from None
    return metrics


def code_version() -> str:
    """The package's version, with the git revision where the code lies in a checkout."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return mbdcnn.__version__
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        git = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return mbdcnn.__version__
    return f"{mbdcnn.__version__}+g{git.stdout.strip()}"
