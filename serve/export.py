"""From a run folder to a complete Triton model repository, checked before it appears."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mbdcnn import preprocessing as preprocessing_module
from mbdcnn.errors import UserError
from mbdcnn.preprocessing import MAX_BYTES, MAX_PIXELS, Preprocessing

SOURCE = Path(__file__).parent / "model_repository"
MANIFEST = "manifest.json"
FORMAT = "mbdcnn-model-repository"
_FORMAT_VERSION = 1
_MOST_INSTANCES = 8  # each is a process of its own, six a core


def export(run: Path, out: Path, progress: bool = False, *, instances: int | None = None) -> dict[str, Any]:
    """Write a run's networks as a model repository that Triton serves as it is.

    The repository appears whole or not at all: it is built beside `out`, checked, then renamed. An `out` that
    an earlier export wrote is replaced whole; any other folder that holds something is refused.

    Args:
        run: a run folder with all three stages.
        out: the model repository to write.
        progress: show a bar on standard error.
        instances: copies of each model that serve at once; the number of cores (at most 8) when None.

    Returns:
        The repository's `manifest.json`: classes, preprocessing, tensors, parity figures, what the networks
        were made from, and the SHA-256 of every file.

    Raises:
        UserError: a stage is missing, `out` is not ours to replace or cannot be written, an extra is not
            installed, or the exported networks differ from the trained ones.
    """
    from mbdcnn import runs
    from mbdcnn.data.fingerprint import FILE

    _require_extra()
    out = out.absolute()
    _check_replaceable(out)
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
        fingerprint=run / FILE,
    )


def export_networks(
    networks: Any,
    spec: Preprocessing,
    out: Path,
    provenance: dict[str, Any],
    progress: bool = False,
    *,
    instances: int | None = None,
    fingerprint: Path | None = None,
) -> dict[str, Any]:
    """`export` for networks that are in memory (`MutualBootstrap`, in evaluation mode, on the CPU).

    The data set's fingerprint goes with them where there is one.
    """
    _require_extra()
    from tqdm import tqdm

    from serve._graphs import GRAPHS, OPSET, write_graphs
    from serve._parity import check_parity

    out = out.absolute()
    _check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.building-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out.parent} cannot be written ({error.strerror}); choose another --out.") from None
    bar = tqdm(total=len(GRAPHS) + 1, desc="export", leave=False, disable=not progress)
    try:
        shapes = write_graphs(networks, spec.image_size, building, bar.update)
        classes = networks.mask_cn.classes
        copies = instances or min(len(os.sched_getaffinity(0)), _MOST_INSTANCES)
        _write_models(building, spec, classes, shapes, copies)
        if fingerprint is not None and fingerprint.is_file():
            shutil.copyfile(fingerprint, building / fingerprint.name)
        manifest = {
            "format": FORMAT,
            "format_version": _FORMAT_VERSION,
            "classes": list(classes),
            "preprocessing": asdict(spec),
            "onnx_opset": OPSET,
            "tensors": shapes,
            "parity": check_parity(networks, spec, building),
            "provenance": provenance,
            "files": {str(p.relative_to(building)): _sha256(p) for p in _files(building)},
        }
        text = json.dumps(manifest, indent=2) + "\n"
        (building / MANIFEST).write_text(text)
        building.chmod(0o755)  # the temporary folder is its maker's alone; the server may be another user
        _publish(building, out)
    except OSError as error:
        raise UserError(f"{out} could not be written ({error.strerror or error}); nothing there was changed.") from None
    finally:
        bar.close()
        shutil.rmtree(building, ignore_errors=True)
    return json.loads(text)


def _require_extra() -> None:
    """Name the extra when a library of this room is not installed."""
    for module in ("onnx", "onnxscript", "onnxruntime", "tritonclient.grpc"):
        try:
            __import__(module)
        except ImportError:
            library = module.partition(".")[0]
            raise UserError(f"{library} is not installed; install it with `pip install 'mbdcnn[serve]'`.") from None


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything that an earlier export did not write."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out} is not a folder; choose another --out.")
    if not any(out.iterdir()):
        return
    try:
        manifest = json.loads((out / MANIFEST).read_text())
        known = {MANIFEST, *manifest["files"]} if manifest["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None:
        raise UserError(f"{out} holds files that no export wrote; choose an empty or a new folder for --out.")
    foreign = [p.relative_to(out) for p in _files(out) if str(p.relative_to(out)) not in known]
    if foreign:
        raise UserError(f"{out} also holds {foreign[0]}, which no export wrote; move it away or choose another --out.")


def _write_models(
    folder: Path, spec: Preprocessing, classes: Sequence[str], shapes: dict[str, dict[str, list[int]]], instances: int
) -> None:
    """Everything of the repository but the networks."""
    size = [spec.image_size, spec.image_size]
    shapes = {
        **shapes,
        "preprocess": {"image": [3, *size]},
        "postprocess": {"lesion": shapes["enhanced_sn"]["lesion"]},
        "mbdcnn": {
            "PROBABILITIES": shapes["mask_cn"]["probabilities"],
            "COARSE_MASK": shapes["coarse_sn"]["mask_out"],
            "CAM": shapes["cam"]["cam_out"],
            "LESION_PROBABILITY": shapes["enhanced_sn"]["lesion_out"],
        },
    }
    document = json.dumps({**asdict(spec), "max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}, indent=2) + "\n"
    for source in sorted(SOURCE.glob("*/config.pbtxt")):
        model = folder / source.parent.name
        version = model / "1"
        version.mkdir(parents=True, exist_ok=True)
        text = _configure(source, shapes[model.name], instances)
        (model / "config.pbtxt").write_text(text)
        if "labels.txt" in text:
            (model / "labels.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        if (version / "model.onnx").exists():
            shutil.copyfile(SOURCE / "onnx_model.py", version / "model.py")
        elif (source.parent / "1" / "model.py").exists():
            shutil.copyfile(source.parent / "1" / "model.py", version / "model.py")
            shutil.copyfile(str(preprocessing_module.__file__), version / "preprocessing.py")
            (version / "preprocessing.json").write_text(document)
        else:
            # an ensemble's version folder is empty, and tools that copy files alone would lose it
            (version / ".keep").touch()


def _configure(source: Path, shapes: dict[str, list[int]], instances: int) -> str:
    """A model's configuration with the sizes and the number of instances filled in."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tritonclient.grpc import model_config_pb2

    config = text_format.Parse(source.read_text(), model_config_pb2.ModelConfig())
    for tensor in (*config.input, *config.output):
        if -1 in tensor.dims:
            tensor.dims[:] = shapes[tensor.name]
    for group in config.instance_group:
        group.count = instances
    return f"# Written by `mbdcnn export`.\n{text_format.MessageToString(config)}"


def _publish(building: Path, out: Path) -> None:
    """Put the finished repository in its place; an older one comes back if that fails."""
    if not out.exists():
        building.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
    out.rename(old)
    try:
        building.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """Every file, except what Python may have cached beside the models."""
    return [p for p in sorted(folder.rglob("*")) if not p.is_dir() and "__pycache__" not in p.parts]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
