"""The CLAIM checklist (Checklist for Artificial Intelligence in Medical Imaging, 2024 update), filled for a repository.

The items are in our words, in the update's order. What the documents tell is filled in; what they do not says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serve._about import About
from serve._card import METHOD
from serve._card_results import markdown

_CARD = "MODEL_CARD.md"
_NO = "No."


def claim_page(manifest: Mapping[str, Any], scores: Mapping[str, Any], about: About) -> str:
    """The checklist as a page: number, what the item asks for, what holds here."""
    answers = _answers(manifest, scores, about)
    assert len(answers) == len(_ITEMS)
    rows = [[str(i), item, answer] for i, (item, answer) in enumerate(zip(_ITEMS, answers, strict=True), start=1)]
    return (
        "# CLAIM\n\nChecklist for Artificial Intelligence in Medical Imaging, 2024 update, items in short. This is the "
        "report of a model, not of a clinical study: where an item does not apply, it says so.\n\n"
        f"{markdown(['item', 'asks for', 'here'], rows)}\n"
    )


_ITEMS = (
    "Named as a study of AI, with the kind of technology",
    "Summary of design, methods, results and conclusions",
    "Background, intended use and role of the AI",
    "Aims and hypotheses",
    "Prospective or retrospective",
    "Goal of the study",
    "Sources of the data",
    "Inclusion and exclusion",
    "Preprocessing",
    "Selection of parts of the data",
    "De-identification",
    "Missing data",
    "Image acquisition",
    "Reference standard, how it was obtained",
    "Why this reference standard",
    "Who annotated",
    "Annotation of the test set",
    "Agreement of annotators",
    "How data were assigned to partitions",
    "Level at which partitions are disjoint",
    "Intended sample size",
    "The model in detail",
    "Software",
    "How parameters are initialised",
    "Training in detail",
    "How the final model was chosen",
    "Ensembling",
    "Measures of performance",
    "Statistical significance and uncertainty",
    "Robustness, sensitivity",
    "Explainability",
    "Evaluation on internal data",
    "Testing on external data",
    "Registration of a clinical trial",
    "Numbers included and excluded",
    "Demographic and clinical characteristics of the partitions",
    "Performance, with uncertainty, on all partitions",
    "Diagnostic performance and its precision",
    "Analysis of failures",
    "Limits",
    "Implications for practice",
    "Where the full protocol is",
    "Availability of software, model and data",
    "Funding",
)


def _answers(manifest: Mapping[str, Any], scores: Mapping[str, Any], about: About) -> list[str]:
    provenance, spec = manifest["provenance"], manifest["preprocessing"]
    stages = provenance.get("stages", {})
    sources = sorted({stage["data"]["name"] for stage in stages.values() if "data" in stage})
    packages: Mapping[str, Any] = next((stage.get("environment", {}) for stage in stages.values()), {})
    software = ", ".join(f"{name} {version}" for name, version in packages.items() if isinstance(version, str))
    begun = [pair for stage in stages.values() for pair in stage.get("pretrained", {}).items()]
    weights = sorted({f"{encoder} from {file}" for encoder, file in begun if file != "none"})
    side = spec["image_size"]
    split, images = scores["split"], scores["n_images"]
    chosen = "the epoch was chosen on this split too" if split == "validation" else "no choice was made on it"
    calibrated = manifest.get("calibration") is not None
    return [
        "Deep learning: convolutional networks for segmentation and classification.",
        f"{_CARD}.",
        f"{METHOD} Research only.",
        "To segment and classify as the paper's method does; no hypothesis was tested.",
        "Retrospective.",
        "Model creation.",
        f"{about.data} Folders: {', '.join(sources) or 'unknown'}.",
        "Files that cannot be used are left out, each with its reason, by `mbdcnn data index`.",
        f"The whole frame is squashed to {side} x {side} pixels, mean {spec['mean']}, deviation {spec['std']}.",
        "All usable images of the splits.",
        about.deidentification,
        "Images without a mask count for classification only, without a label for segmentation only.",
        about.acquisition,
        about.reference,
        "It is the one that the data set has, and what other work is measured by.",
        about.annotators,
        f"As the other splits': {about.reference}",
        about.agreement,
        "As the data set gives them, or by a hash of the names where it gives none.",
        about.disjoint,
        f"None was computed; {images} images are what the {split} split holds.",
        f"{METHOD} Inputs, outputs and tensors: `manifest.json`.",
        f"{software or 'unknown'}; code {provenance.get('code_version', 'unknown')}.",
        f"{', '.join(weights)}; new layers at random." if weights else "At random.",
        f"Epochs, times, scores and settings: {_CARD}.",
        "The epoch with the best score on the validation split, stage by stage.",
        _NO,
        "Jaccard, Dice, accuracy, sensitivity, specificity; AUC of each class and their mean, and its decisions'.",
        "95 % intervals by bootstrap over images; no test of significance.",
        f"Subgroups: {_CARD}.",
        "Class activation map, as an output; it was not judged by clinicians.",
        f"{images} images of the {split} split; {chosen}.",
        "None, unless the card's table names other data.",
        "Does not apply.",
        f"{images} images in this evaluation; counts of every split: `fingerprint.json`.",
        about.people,
        f"{_CARD}, for the {split} split; the training split was not scored.",
        f"{_CARD}.",
        "Best, median and worst masks and the surest mistakes are pictures of the report of `mbdcnn evaluate`"
        + ("; doubt is judged by risk and coverage." if calibrated else "."),
        f"{_CARD}.",
        "None: research only, not a medical device.",
        "README.md and the code.",
        f"Code: Apache-2.0. Weights: {about.weights_licence} Data: {about.data_licence}",
        "Not stated.",
    ]
