"""Coarse-SN, mask-CN, enhanced-SN, and the chain of the three."""

from mbdcnn.networks.backbone import LoadReport, find_weights, place, read_backbone
from mbdcnn.networks.bootstrap import Guidance, MutualBootstrap, Prediction, binarise, guide, guiding_mask, segment
from mbdcnn.networks.classification import MaskCN
from mbdcnn.networks.segmentation import CoarseSN, ELayer, EnhancedSN

__all__ = [
    "CoarseSN",
    "ELayer",
    "EnhancedSN",
    "Guidance",
    "LoadReport",
    "MaskCN",
    "MutualBootstrap",
    "Prediction",
    "binarise",
    "find_weights",
    "guide",
    "guiding_mask",
    "place",
    "read_backbone",
    "segment",
]
