"""What a result is worth: the paper's measures, their intervals, calibration, and whether doubt finds bad answers."""

from mbdcnn.metrics.calibration import (
    CalibrationScores,
    Reliability,
    calibration_scores,
    cross_fitted,
    fit_temperature,
    reliability,
)
from mbdcnn.metrics.classification import (
    ClassificationScores,
    ClassScores,
    OneVersusRest,
    classification_scores,
    one_versus_rest,
    scored_classes,
)
from mbdcnn.metrics.intervals import LEVEL, RESAMPLES, classification_intervals, drawings, mean_interval
from mbdcnn.metrics.segmentation import SegmentationScores, jaccard, mean_scores, score_mask
from mbdcnn.metrics.selection import Detection, Selection, detection, risk_coverage, selection

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "CalibrationScores",
    "ClassScores",
    "ClassificationScores",
    "Detection",
    "OneVersusRest",
    "Reliability",
    "SegmentationScores",
    "Selection",
    "calibration_scores",
    "classification_intervals",
    "classification_scores",
    "cross_fitted",
    "detection",
    "drawings",
    "fit_temperature",
    "jaccard",
    "mean_interval",
    "mean_scores",
    "one_versus_rest",
    "reliability",
    "risk_coverage",
    "score_mask",
    "scored_classes",
    "selection",
]
