"""What a result is worth: the paper's five segmentation and four classification measures."""

from mbdcnn.metrics.classification import (
    ClassificationScores,
    ClassScores,
    OneVersusRest,
    classification_scores,
    one_versus_rest,
    scored_classes,
)
from mbdcnn.metrics.segmentation import SegmentationScores, jaccard, mean_scores, score_mask

__all__ = [
    "ClassScores",
    "ClassificationScores",
    "OneVersusRest",
    "SegmentationScores",
    "classification_scores",
    "jaccard",
    "mean_scores",
    "one_versus_rest",
    "score_mask",
    "scored_classes",
]
