"""What a result is worth: the paper's five segmentation and four classification measures."""

from mbdcnn.metrics.classification import (
    SCORED_CLASSES,
    ClassificationScores,
    ClassScores,
    OneVersusRest,
    classification_scores,
    one_versus_rest,
)
from mbdcnn.metrics.segmentation import SegmentationScores, jaccard, mean_scores, score_mask

__all__ = [
    "SCORED_CLASSES",
    "ClassScores",
    "ClassificationScores",
    "OneVersusRest",
    "SegmentationScores",
    "classification_scores",
    "jaccard",
    "mean_scores",
    "one_versus_rest",
    "score_mask",
]
