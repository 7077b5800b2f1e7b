"""The detector: a trained Mask R-CNN's answer to an image, as a model with outputs of fixed shapes.

Training lives in `cellseg.models.mask_rcnn.network`; the choice of the found boxes in `detections`.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from cellseg.models.mask_rcnn.detections import detect
from cellseg.models.mask_rcnn.layout import check_sides, flat, of_class
from cellseg.models.mask_rcnn.proposals import propose


class Detector(keras.Model):
    """Objects of an image: `MaskRCNN.detect` says what the outputs are.

    Args:
        trained: The MaskRCNN whose weights it shares.
        options: Checked options, those of inference.
    """

    def __init__(self, trained, options: Mapping[str, Any]):
        super().__init__(name="detector", dtype="float32")
        self.trained = trained
        self.limits = (options["proposals"], options["proposal_iou"])
        self.rules = (options["score_threshold"], options["detection_iou"], options["detections"])
        self.built = True
        # XLA on a CPU is slower here, and takes a minute to compile.
        self.compile(jit_compile=keras.backend.backend() != "tensorflow")

    def call(self, image, training=False):
        """Boxes, scores, classes and masks of the best objects, and how many were found."""
        height, width = check_sides(image.shape)
        trained = self.trained
        answer = trained(image, training=False)
        (each, total), proposal_iou = self.limits
        regions, valid = propose(
            flat(answer["scores"], 1),
            flat(answer["codes"], 4),
            trained.anchors(height, width),
            height=height,
            width=width,
            each=each,
            total=total,
            iou=proposal_iou,
        )
        logits, codes = trained.box_head(trained.regions(answer["features"], regions, size=trained.box_bins))
        rows = (*regions.shape[:2], -1)
        least, iou, number = self.rules
        boxes, scores, classes, found = detect(
            regions,
            valid,
            ops.reshape(logits, rows),
            ops.reshape(codes, (*rows[:2], logits.shape[-1], 4)),
            height=height,
            width=width,
            score_threshold=least,
            iou=iou,
            number=number,
        )
        masks = trained.mask_head(trained.regions(answer["features"], boxes, size=trained.mask_bins))
        masks = ops.moveaxis(ops.reshape(masks, (*boxes.shape[:2], *masks.shape[1:])), -1, 2)
        probability = ops.sigmoid(of_class(masks, classes))
        return {"boxes": boxes, "scores": scores, "classes": classes, "masks": probability, "found": found}
