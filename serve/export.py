"""From a run folder to a version of a complete Triton model repository, checked before it appears."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mbdcnn import preprocessing as preprocessing_module
from mbdcnn.errors import UserError
from mbdcnn.layout import FINGERPRINT
from mbdcnn.preprocessing import Preprocessing
from serve._form import Form
from serve._profiles import FUSED, MODELS, SOURCE, Facts, write_configurations
from serve._versions import FORMAT_VERSION, carry_over, checksums, current, next_version, replacement
from serve.probe import MODEL
from serve.verify import FORMAT, MANIFEST

MODEL_CARD = "model_card.json"
_MOST_INSTANCES = 8  # each is a process of its own, seven a core
# What the Python models import of the sources beside them; what they import of Triton is not ours.
_PARTS = {
    "preprocess": ("backlog.py", "images.py", "dali_reader.py", "preprocessing.py", "preprocessing.json"),
    "postprocess": ("images.py", "preprocessing.py"),
    "mbdcnn_fused": ("backlog.py", "images.py", "network.py", "preprocessing.py", "preprocessing.json"),
}
_NETWORK_PARTS = ("network.py",)


def export(
    run: Path,
    out: Path,
    progress: bool = False,
    *,
    data: Path | None = None,
    instances: int | None = None,
    form: Form = Form(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Write a run's networks as a new version of a model repository that Triton serves as it is.

    The repository appears whole or not at all: it is built beside `out`, checked, then exchanged with it. One that an
    earlier export wrote gets version N + 1 of every model and keeps version N to go back to; any other folder that
    holds something is refused.

    Args:
        run: a run folder with all three stages.
        out: the model repository to write.
        progress: show a bar on standard error.
        data: a data folder whose validation images show that the scores stay; the run's own when None.
        instances: copies of each model that serve at once; the number of cores (at most 8) when None.
        form: of the networks.

    Returns:
        The repository's `manifest.json`: version, classes, preprocessing, tensors, parity figures, what the networks
        were made from, with every setting of each stage, and the files: their SHA-256, and how many `bytes` they
        are together. `parity.validation.skipped` says why where the scores were not compared.

    Raises:
        UserError: a stage is missing, `out` is not ours to replace or cannot be written, an extra is not
            installed, `data` cannot be used, or the exported networks differ from the trained ones.
    """
    from mbdcnn import calibration, runs
    from serve._sample_parity import validation_images

    _require_extra()
    current(out.absolute())
    networks, config = runs.load_networks(run)
    if not config.network.mask_channel or config.network.e_layer == "none" or networks.further_rounds:
        raise UserError(
            f"{run} is an experiment that the ensemble cannot serve: it needs network.mask_channel=true, a "
            "network.e_layer other than none, and bootstrap.rounds=1; train such a run."
        )
    return export_networks(
        networks.cpu().eval(),
        config.preprocessing,
        out,
        runs.provenance(run),
        progress,
        instances=instances,
        form=form,
        calibration=calibration.read(run),
        fingerprint=run / FINGERPRINT,
        validation=validation_images(run, data),
    )


def export_networks(
    networks: Any,
    spec: Preprocessing,
    out: Path,
    provenance: dict[str, Any],
    progress: bool = False,
    *,
    instances: int | None = None,
    form: Form = Form(),  # noqa: B008 - frozen
    calibration: dict[str, Any] | None = None,
    fingerprint: Path | None = None,
    validation: Any = "no data were named",
) -> dict[str, Any]:
    """`export` for networks that are in memory (`MutualBootstrap`, in evaluation mode, on the CPU).

    What is known of their `calibration`, which the networks themselves have, and the data set's fingerprint go with
    them where there are any; `validation` is what `validation_images` returns.
    """
    _require_extra()
    from tqdm import tqdm

    from serve._graphs import GRAPHS, OPSET, write_graphs
    from serve._parity import check_parity

    out = out.absolute()
    current(out)
    with replacement(out) as building, tqdm(desc="export", leave=False, disable=not progress) as bar:
        before = current(out)  # again, now that no other export can add one
        version = next_version(before)
        bar.reset(len(GRAPHS) + 2)
        tensors = write_graphs(networks, spec.image_size, building, version, bar.update, form)
        document: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "version": version,
            "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "classes": list(networks.mask_cn.classes),
            "preprocessing": asdict(spec),
            "onnx_opset": OPSET,
            "weights": form.weights,
            "instances": instances or min(len(os.sched_getaffinity(0)), _MOST_INSTANCES),
            "tensors": _with_ends(tensors, spec),
            "provenance": provenance,
            "calibration": calibration,
        }
        parity = check_parity(networks, spec, building, version, form)
        bar.update()
        document["parity"] = {**parity, "validation": _scores(networks, spec, building, version, validation)}
        bar.update()
        _write_version(building, document, fingerprint)
        kept = [version]
        if before is not None and carry_over(out, version - 1, building):
            kept.insert(0, version - 1)
        return finish(building, version, kept)


def finish(building: Path, version: int, kept: list[int]) -> dict[str, Any]:
    """Write what a repository has beside its versions: configurations of the one that it serves, and the manifest.

    Args:
        building: holds the versions.
        version: to serve.
        kept: every version that is there.

    Returns:
        The manifest.
    """
    folder = building / MODEL / str(version)
    document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    digests = {Path(n).parts[0]: d for n, d in document["files"].items() if n.endswith(".onnx")}
    facts = Facts(version, document["classes"], document["tensors"], document["instances"], digests)
    write_configurations(building, facts)
    if (folder / FINGERPRINT).is_file():
        shutil.copyfile(folder / FINGERPRINT, building / FINGERPRINT)
    files = checksums(building)
    size = sum((building / name).stat().st_size for name in files)
    manifest = {**document, "versions": kept, "bytes": size, "files": files}
    _write_json(building / MANIFEST, manifest)
    return manifest


def _scores(networks: Any, spec: Preprocessing, building: Path, version: int, validation: Any) -> dict[str, Any]:
    from serve._sample_parity import check_scores

    if isinstance(validation, str):
        return {"skipped": validation}
    return check_scores(networks, spec, building, version, validation)


def _require_extra() -> None:
    """Name the extra when a library of this room is not installed."""
    for module in ("onnx", "onnxscript", "onnxruntime", "tritonclient.grpc"):
        try:
            __import__(module)
        except ImportError:
            library = module.partition(".")[0]
            raise UserError(f"{library} is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None


def _with_ends(tensors: Mapping[str, Mapping[str, list[int]]], spec: Preprocessing) -> dict[str, Any]:
    """The networks' tensors, and those of the models around them."""
    answers = {
        "PROBABILITIES": tensors["mask_cn"]["probabilities"],
        "COARSE_MASK": tensors["coarse_sn"]["mask_out"],
        "CAM": tensors["cam"]["cam_out"],
        "LESION_PROBABILITY": tensors["enhanced_sn"]["lesion_out"],
        "MASK_DOUBT": tensors["enhanced_sn"]["mask_doubt"],
        "CLASS_DOUBT": tensors["mask_cn"]["class_doubt"],
        "UNFAMILIARITY": tensors["mask_cn"]["unfamiliarity"],
    }
    return {
        **tensors,
        "preprocess": {"image": [3, spec.image_size, spec.image_size]},
        "postprocess": {"lesion": tensors["enhanced_sn"]["lesion"]},
        MODEL: answers,
        "mbdcnn_fused": answers,
    }


def _write_version(building: Path, document: dict[str, Any], fingerprint: Path | None) -> None:
    """Everything of the version but the networks; its manifest last."""
    from serve._card import model_card

    number = str(document["version"])
    for model in MODELS:
        folder = building / model / number
        folder.mkdir(parents=True, exist_ok=True)
        own = SOURCE / model / "1" / "model.py"
        if own.is_file():
            shutil.copyfile(own, folder / "model.py")
            _copy_parts(_PARTS[model], folder, document)
        elif (folder / "model.onnx").is_file():
            shutil.copyfile(SOURCE / "onnx_model.py", folder / "model.py")
            _copy_parts(_NETWORK_PARTS, folder, document)
        elif model == FUSED:  # Triton needs the folder, and git keeps none that is empty
            (folder / "no-graph.txt").write_text("Exported without the graph of all networks.\n")
    folder = building / MODEL / number
    data = None
    if fingerprint is not None and fingerprint.is_file():
        shutil.copyfile(fingerprint, folder / FINGERPRINT)
        data = json.loads(fingerprint.read_text(encoding="utf-8"))
    _write_json(folder / MODEL_CARD, model_card(document, data))
    _write_json(folder / MANIFEST, {**document, "files": checksums(building, f"*/{number}/*")})


def _copy_parts(names: tuple[str, ...], folder: Path, document: dict[str, Any]) -> None:
    for name in names:
        if name == "preprocessing.json":
            _write_json(folder / name, document["preprocessing"])
        else:
            ours = Path(str(preprocessing_module.__file__)) if name == "preprocessing.py" else SOURCE / name
            shutil.copyfile(ours, folder / name)


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
