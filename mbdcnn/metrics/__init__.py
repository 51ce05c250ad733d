"""What a result is worth: the paper's measures, their intervals, calibration, and whether doubt finds bad answers."""

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

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "ClassScores",
    "ClassificationScores",
    "OneVersusRest",
    "SegmentationScores",
    "classification_intervals",
    "classification_scores",
    "drawings",
    "jaccard",
    "mean_interval",
    "mean_scores",
    "one_versus_rest",
    "score_mask",
    "scored_classes",
]
