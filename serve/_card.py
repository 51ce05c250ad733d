"""The model card: what a version is, what it was made from, and what it is not for."""

from __future__ import annotations

from typing import Any

METHOD = (
    "Mutual bootstrapping (Xie et al., IEEE TMI 2020): coarse-SN segments, mask-CN classifies the image with that "
    "mask, enhanced-SN segments again, guided by mask-CN's activation map."
)
USE = (
    "Research on dermoscopic images. Not a medical device: no answer may decide on a diagnosis or a treatment, and it "
    "has not been assessed on images from other devices, body sites or skin tones than those of its training data."
)
ANSWERS = {
    "PROBABILITIES": "of the classes, in their order; they sum to 1",
    "COARSE_MASK": "coarse-SN's mask in the square frame of the network, 0 or 1",
    "CAM": "where mask-CN's evidence for the predicted class lies, 0 to 1",
    "LESION_PROBABILITY": "enhanced-SN's probability of lesion in the square frame of the network",
    "MASK_PNG": "the lesion at the image's own size, PNG, 0 or 255",
    "MASK_DOUBT": "1 minus the Jaccard index that the mask can expect by its probability map, 0 to 1",
    "CLASS_DOUBT": "1 minus the largest probability",
    "UNFAMILIARITY": "distance from the training images; above 1: farther than 95 % of validation images; -1: unknown",
}


def model_card(document: dict[str, Any], fingerprint: dict[str, Any] | None) -> dict[str, Any]:
    """The card of a version.

    Args:
        document: the version's manifest, as far as it is known.
        fingerprint: of the data that the networks were trained on, where there is one.
    """
    provenance = document["provenance"]
    stages = provenance.get("stages", {})
    trained_on = {metrics["data"]["fingerprint"] for metrics in stages.values() if "data" in metrics}
    return {
        "name": "MB-DCNN",
        "version": document["version"],
        "exported": document["exported"],
        "code_version": provenance.get("code_version"),
        "licence": "Apache-2.0 for the code; the weights' terms follow from the images and pretrained weights used",
        "method": METHOD,
        "use": USE,
        "input": "IMAGE: an encoded dermoscopic JPEG, PNG or BMP of 8 bits per channel, the whole frame",
        "answers": ANSWERS,
        "classes": document["classes"],
        "preprocessing": document["preprocessing"],
        "run": provenance.get("run"),
        "scores_when_trained": {stage: metrics["best"] for stage, metrics in stages.items()},
        "parity_with_the_run": document["parity"],
        "calibration": document.get("calibration"),
        "data": {
            "fingerprints": sorted(trained_on),
            "splits": None if fingerprint is None else fingerprint.get("splits"),
        },
    }
