"""Mask R-CNN: boxes, classes and masks of single objects. Each file holds one part of it.

Other networks live in `cellseg.models`; label images made of the answers outside of it.
"""

from cellseg.models.mask_rcnn.detector import Detector
from cellseg.models.mask_rcnn.layout import SIDE_FACTOR
from cellseg.models.mask_rcnn.network import MaskRCNN

__all__ = ["SIDE_FACTOR", "Detector", "MaskRCNN"]
