"""Coarse-SN, mask-CN, enhanced-SN, and the chain of the three."""

from mbdcnn.networks.backbone import LoadReport, find_weights, place, read_backbone
from mbdcnn.networks.bootstrap import Guidance, MutualBootstrap, Prediction, binarise, guide, guiding_mask
from mbdcnn.networks.classification import MaskCN
from mbdcnn.networks.segmentation import CoarseSN, ELayer, EnhancedSN
from mbdcnn.networks.views import VIEWS, over_views

__all__ = [
    "VIEWS",
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
    "over_views",
    "place",
    "read_backbone",
]
