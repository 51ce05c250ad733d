"""`MODEL_CARD.md` and `CLAIM.md` of a model repository, every figure from the documents that measured it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.layout import FINGERPRINT
from serve import _card_results as results
from serve._about import About, read_about
from serve._card import ANSWERS, METHOD, USE
from serve._card_training import training
from serve._claim import claim_page
from serve.verify import verify

CARD, CLAIM = "MODEL_CARD.md", "CLAIM.md"
_VIEWS = {
    2: "the image and the image turned by half",
    4: "the image, its two mirror images and the image turned by half",
}
_PAPER = "paper, Xception, 3,320 image labels"
# Xie et al. 2020, tables 4 to 6: ISIC-2017 validation.
_PAPER_SCORES: dict[str, Any] = {
    "coarse": {"JA": 0.789},
    "enhanced": {"JA": 0.800},
    "classification": {"mean_AUC": 0.970},
}


def write_card(
    repository: Path,
    scores: Path,
    out: Path,
    *,
    compare: Mapping[str, Path] | None = None,
    paper: bool = False,
    about: Path | None = None,
) -> list[Path]:
    """Write the model card and the CLAIM checklist.

    Args:
        repository: a model repository.
        scores: the `metrics.json` of its evaluation.
        out: folder for both files.
        compare: further evaluations by what a table is to call them, such as other seeds or a baseline.
        paper: put the paper's figures on the ISIC-2017 validation set beside them.
        about: YAML of what no file of the repository tells (`serve/about/isic2017.yaml`).

    Returns:
        The files.

    Raises:
        UserError: a document cannot be read or is none of ours, or the repository is not as it was exported.
    """
    manifest = verify(repository)
    measured = _metrics(scores)
    rows: dict[str, Any] = {_PAPER: _PAPER_SCORES} if paper else {}
    rows |= {"this model": measured, **{name: _metrics(path) for name, path in (compare or {}).items()}}
    said = read_about(about)
    texts = {
        CARD: _card(manifest, _leakage(repository), measured, rows, said),
        CLAIM: claim_page(manifest, measured, said),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(out / name) as part:
            part.write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def _metrics(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if {"protocol", "split", "n_images", "coarse", "enhanced", "classification"} <= document.keys():
            return document
    except (OSError, ValueError, AttributeError):
        pass
    raise UserError(f"{path} is no metrics.json of `mbdcnn evaluate`; name the one in the evaluation's folder.")


def _leakage(repository: Path) -> str:
    """What the training data's fingerprint says of pictures that several splits hold; nothing without one."""
    path = repository / FINGERPRINT
    pairs = json.loads(path.read_text(encoding="utf-8")).get("leakage") if path.is_file() else None
    if pairs is None:
        return ""
    if not pairs:
        return "No two pictures in different splits were found to show the same."
    return (
        f"Pairs of pictures in different splits that show the same: {len(pairs)}, which makes scores somewhat too "
        f"good; `{FINGERPRINT}` names them."
    )


def _card(
    manifest: Mapping[str, Any], leakage: str, scores: Mapping[str, Any], rows: Mapping[str, Any], about: About
) -> str:
    name = f"MB-DCNN, version {manifest['version']}"
    answers = results.markdown(["answer", "what"], [[f"`{tensor}`", what] for tensor, what in ANSWERS.items()])
    parts = [
        f"---\n{_metadata(scores, about)}\n---",
        f"# {name}",
        METHOD,
        USE,
        "## Use",
        "```bash\nmbdcnn serve --repository REPOSITORY\nmbdcnn predict lesion.jpg\n```",
        "Input: an encoded dermoscopic JPEG, PNG or BMP, the whole frame. Classes: "
        f"{', '.join(c.replace('_', ' ') for c in manifest['classes'])}.",
        answers,
        "Out of scope: clinical photographs without a dermatoscope, mucosa and nails, lesions of other kinds than the "
        "classes above (the answer is one of them all the same), and any decision about a patient.",
        "## Data",
        about.data,
        f"People: {about.people}",
        f"Reference: {about.reference}",
        leakage,
        "## Training",
        training(manifest["provenance"]),
        "## Results",
        f"Protocol `{scores['protocol']}` on the {scores['split']} split: {scores['n_images']} images, "
        f"{scores.get('n_masks', 0)} with a mask, {scores.get('n_labels', 0)} with a diagnosis. Percentages, "
        "and 95 % intervals by bootstrap over images. Where the split also chose the epoch, as in the paper, its "
        "scores are somewhat too good." + _views(manifest.get("calibration")),
        results.comparison(rows),
        results.segmentation(scores),
        results.classification(scores),
        "```bash\nmbdcnn evaluate --repository REPOSITORY --data DATA "
        f"--split {scores['split']}   # gives the figures above and the subgroups\n```",
        *_calibrated(manifest.get("calibration")),
        results.trust(scores, manifest.get("calibration")),
        "## Subgroups",
        "Dark surround, scale, hair and skin are told by simple image processing, which errs on some pictures; a wide "
        "interval says that the group is too small to tell.",
        results.subgroups(scores),
        "## Limits",
        _LIMITS,
        "## Exported against trained",
        _parity(manifest["parity"]),
        _size(manifest),
        "## Licence",
        f"Code: Apache-2.0. Weights: {about.weights_licence} Data: {about.data_licence}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(scores: Mapping[str, Any], about: About) -> str:
    """The YAML front matter that Hugging Face reads."""
    from huggingface_hub import EvalResult, ModelCardData

    data = scores.get("data", {}).get("name", "unknown")
    spots = [
        ("image-segmentation", "mean_iou", "Jaccard index, enhanced mask", (scores["enhanced"] or {}).get("JA")),
        ("image-classification", "roc_auc", "mean AUC", (scores["classification"] or {}).get("mean_AUC")),
    ]
    found = [
        EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=data,
            dataset_split=scores["split"],
            metric_type=metric,
            metric_name=title,
            metric_value=round(value, 4),
        )
        for task, metric, title, value in spots
        if value is not None
    ]
    card = ModelCardData(
        language="en",
        license=about.licence,
        library_name="mbdcnn",
        pipeline_tag="image-segmentation",
        tags=["dermoscopy", "skin-lesion", "image-classification", "onnx", "not-for-clinical-use"],
        model_name="MB-DCNN" if found else None,
        eval_results=found or None,
    )
    return card.to_yaml().strip()


def _views(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("views", 1) == 1:
        return ""
    return f" Each network sees {_VIEWS[found['views']]}; the mean is its answer, here and served."


def _calibrated(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["## Calibration and doubt", "Not calibrated: no probability may be read as a chance."]
    return [
        "## Calibration and doubt",
        f"One temperature, fitted to {found['calibration']['images']} images of the {found['split']} split; `after` is "
        "judged in folds whose temperature did not see the image. ECE: expected calibration error, NLL: negative "
        "log-likelihood, Brier: squared distance; 0 is best.",
        results.calibration(found),
        "Doubt, by the area under the risk-coverage curve (risk: 1 - JA, or a wrong class; less is better); gain is 0 "
        "for guessing and 1 for a doubt that knows the risk. Served are expected JA and max probability.",
        results.doubts(found),
        "`UNFAMILIARITY` above 1 is farther from the training images than "
        f"{100 * found['familiarity']['kept']:.0f} % of the validation images are.",
        results.foreign(found),
        "```bash\nmbdcnn calibrate --run RUN --data DATA\n```",
    ]


def _parity(parity: Mapping[str, Any]) -> str:
    largest = ", ".join(f"{name} {value:.1e}" for name, value in parity["max_abs"].items())
    said = f"Largest difference on {parity['images']} images: {largest}."
    compared = parity["validation"]
    if "skipped" in compared:
        return f"{said} Scores were not compared: {compared['skipped']}."
    pairs = ", ".join(
        f"{name} {compared['pytorch'][name]:.4f} / {value:.4f}"
        for name, value in compared["onnxruntime"].items()
        if value is not None
    )
    return f"{said} On {compared['images']} validation images, trained / exported: {pairs}."


def _size(manifest: Mapping[str, Any]) -> str:
    """How large the repository is; nothing where its export did not say."""
    if "bytes" not in manifest:
        return ""
    kept = f" (versions {', '.join(map(str, manifest['versions']))})" if len(manifest["versions"]) > 1 else ""
    return f"All files{kept} together: {manifest['bytes'] / 1e6:.1f} MB; weights stored as {manifest['weights']}."


_LIMITS = """\
- Measured on one data set, on images like those it was trained on; other devices, clinics, ages and skin tones may give
  other results.
- The classes are those of the training data. A lesion of another kind gets one of them, and `UNFAMILIARITY` tells
  pictures that are not dermoscopic, not diagnoses that are missing.
- The activation map shows where the classifier's evidence lies; it is no explanation that a clinician could check.
- Temperature and limits were fitted to few images of the same source, and mean little elsewhere."""
