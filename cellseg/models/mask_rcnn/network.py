"""Mask R-CNN: the network with its losses, as Keras' `fit` wants it.

Its parts live in the other rooms of `cellseg.models.mask_rcnn`; inference in `detector`. Truth batches are made in
`pipelines`, and what becomes of detections is decided outside of `cellseg.models`.
"""

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from cellseg.models.mask_rcnn import losses, matching
from cellseg.models.mask_rcnn.align import crop_ids, roi_align
from cellseg.models.mask_rcnn.anchors import pyramid_anchors
from cellseg.models.mask_rcnn.boxes import BOX_WEIGHTS, encode
from cellseg.models.mask_rcnn.detector import Detector
from cellseg.models.mask_rcnn.heads import box_head, mask_head
from cellseg.models.mask_rcnn.layout import BOX_BINS, MASK_BINS, check_sides, flat, of_class
from cellseg.models.mask_rcnn.options import BACKBONES, checked
from cellseg.models.mask_rcnn.proposals import proposal_head, propose
from cellseg.models.mask_rcnn.published import load_published
from cellseg.models.mask_rcnn.pyramid import pyramid
from cellseg.models.mask_rcnn.resnet import resnet
from cellseg.models.mask_rcnn.suppression import take_rows

ROI_LEVELS = 4  # regions are cut from P2 to P5
PARTS = ("proposal_score_loss", "proposal_box_loss", "class_loss", "box_loss", "mask_loss")


@keras.saving.register_keras_serializable(package="cellseg")
class MaskRCNN(keras.Model):
    """Mask R-CNN: boxes, classes and masks of the objects of an image. Defaults are those of torchvision.

    43,922,395 weights with the defaults and one class, batch normalisation not counted. `fit` takes batches (image,
    truth): image float32 (B, H, W, C) in [0, 1], H and W multiples of 32, shapes static; truth a dict of `boxes`
    float32 (B, M, 4), `classes` int32 (B, M), 0 = empty row, and `labels` int32 (B, H, W), whose id i is row i - 1 of
    the boxes, -1 = ignored. The loss is the network's own; `compile` needs an optimiser alone.

    Departures from torchvision: anchors stand at the cells' middles and are not rounded; regions and masks are sampled
    where they are (`aligned`); batch normalisation learns unless `batch_norm` says else.

    Args:
        classes: Number of object classes, background not counted.
        channels: Of the image.
        backbone: `resnet50` or `resnet18`.
        width: Channels of the backbone's first stage; 64 is the published network.
        batch_norm: `trainable`, or `frozen` for pretrained weights: scale, shift and moving statistics stay. With
            random weights they would be those of no data: nothing would be normalised.
        fpn_channels: Of each level of the pyramid.
        box_features: Hidden size of the box head.
        mask_channels: Of the mask head's hidden layers.
        mask_layers: Number of the mask head's 3x3 convolutions.
        anchor_sizes: In pixels, one entry for each level P2, P3, ... that is used (1 to 5); an entry may be a list.
        anchor_ratios: Height / width.
        training_proposals: Number of regions (of a level before non-maximum suppression, of an image after it).
        proposals: The same at inference.
        proposal_iou: IoU of two regions above which the worse is dropped.
        anchor_samples: Anchors of an image that the proposals' loss counts.
        roi_samples: Regions of an image that the heads are trained on.
        positive_share: Of the samples, at most this share covers an object (of anchors half); the mask head sees
            these alone.
        score_threshold: Least probability of a found object.
        detection_iou: IoU of two found objects of a class above which the worse is dropped.
        detections: Number of rows that `detect` returns.
        pretrained: Path of published weights, of the backbone or the whole, see `published`; None = random. A saved
            network holds its own.
        seed: Of the sampling.
        precision: Name of a dtype policy; None = Keras' global one.

    Raises:
        InputError: an option out of range, or an image whose sides are unknown or no multiples of 32.

    Reference:
        He, Gkioxari, Dollar, Girshick 2017, https://arxiv.org/abs/1703.06870
    """

    box_bins, mask_bins = BOX_BINS, MASK_BINS

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        backbone: str = "resnet50",
        width: int = 64,
        batch_norm: str = "trainable",
        fpn_channels: int = 256,
        box_features: int = 1024,
        mask_channels: int = 256,
        mask_layers: int = 4,
        anchor_sizes: Sequence[float | Sequence[float]] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        training_proposals: Sequence[int] = (2000, 2000),
        proposals: Sequence[int] = (1000, 1000),
        proposal_iou: float = 0.7,
        anchor_samples: int = 256,
        roi_samples: int = 512,
        positive_share: float = 0.25,
        score_threshold: float = 0.05,
        detection_iou: float = 0.5,
        detections: int = 100,
        pretrained: str | None = None,
        seed: int = 0,
        precision: str | None = None,
        name: str = "mask_rcnn",
    ):
        given = {key: value for key, value in locals().items() if key not in ("self", "name", "__class__")}
        options = checked({**given, "precision": precision or keras.config.dtype_policy().name})
        super().__init__(name=name, dtype="float32")  # its own precision would cast the image
        self.options: Mapping[str, Any] = types.MappingProxyType(options)  # a dict would be tracked as a layer
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(options["precision"])
        try:
            self.network = _network(options)
            self.box_head = box_head(size=BOX_BINS, channels=fpn_channels, features=box_features, classes=classes)
            self.mask_head = mask_head(
                size=MASK_BINS, channels=fpn_channels, features=mask_channels, depth=mask_layers, classes=classes
            )
        finally:
            keras.config.set_dtype_policy(before)
        if pretrained is not None:
            load_published(self, Path(pretrained))
        self.draws = keras.random.SeedGenerator(seed)
        self.parts = {part: keras.metrics.Mean(name=part) for part in PARTS}
        self.built = True
        detectors: dict[tuple[int, ...], Detector] = {}
        self._detectors = lambda: detectors  # as an attribute, their weights would count twice

    def call(self, image, training=None):
        """Pyramid, scores and box codes of an image: lists over the levels, float (B, h, w, ...)."""
        check_sides(image.shape)
        features, scores, codes = self.network(image, training=training)
        return {"features": features, "scores": scores, "codes": codes}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Sum of the five losses of a batch, and of the layers' own (L2)."""
        parts = self.loss_parts(x, y, y_pred, training=training)
        for part, value in parts.items():
            self.parts[part].update_state(value)
        loss = sum(parts.values())
        for penalty in self.losses:
            loss = loss + ops.cast(penalty, loss.dtype)
        return loss

    def detect(self, image) -> dict[str, Any]:
        """Objects of a batch of images (B, H, W, C), as numpy arrays.

        Compiled once for each shape of a batch: cut images into tiles of one size.

        Returns:
            `boxes` float32 (B, D, 4), best first; `scores` float32 (B, D); `classes` int32 (B, D), 0 = empty row;
            `masks` float32 (B, D, 28, 28), probability over the box; `found` int32 (B,), objects before the cut at D.
        """
        detectors = self._detectors()
        if image.shape not in detectors:
            detectors[tuple(image.shape)] = self.detector()
        return detectors[tuple(image.shape)].predict_on_batch(image)

    def detector(self, **options) -> Detector:
        """A model that answers as `detect` does, over the same weights.

        Args:
            **options: `proposals`, `proposal_iou`, `score_threshold`, `detection_iou` and `detections`, where they
                shall not be the network's own.
        """
        return Detector(self, checked({**self.options, **options}))

    def compile(self, optimizer="sgd", **options):
        """As Keras does; float16 gradients are scaled, or small ones would become 0."""
        optimizer = keras.optimizers.get(optimizer)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if self.options["precision"] == "mixed_float16" and not scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer, **options)
        # Variables that came to be while TensorFlow traces the first step would make it trace that step twice.
        self.optimizer.build(self.trainable_variables)

    def get_config(self):
        """Arguments of the constructor."""
        return {**self.options, "pretrained": None, "name": self.name}

    def anchors(self, height: int, width: int) -> list[Any]:
        """Anchors of an image: a list over the levels, float32 (A, 4)."""
        return pyramid_anchors(height, width, sizes=self.options["anchor_sizes"], ratios=self.options["anchor_ratios"])

    def regions(self, features, boxes, *, size: int):
        """Regions of the pyramid (B, R, 4) as one batch (B * R, size, size, C)."""
        cut = roi_align(features[:ROI_LEVELS], boxes, size=size)
        return ops.reshape(cut, (-1, *cut.shape[2:]))

    def loss_parts(self, image, truth, answer, *, training: bool) -> dict[str, Any]:
        """The five losses of a batch by name, of what `call` answered to its image."""
        options = self.options
        height, width = check_sides(image.shape)
        anchors = self.anchors(height, width)
        scores, codes = flat(answer["scores"], 1), flat(answer["codes"], 4)
        present = truth["classes"] > 0
        truth = {**truth, "present": present, "boxes": ops.where(present[..., None], truth["boxes"], 0.0)}
        each, total = options["training_proposals"]
        regions, valid = propose(
            scores, codes, anchors, height=height, width=width, each=each, total=total, iou=options["proposal_iou"]
        )
        return {
            **self._proposal_losses(ops.concatenate(anchors), truth, scores, codes),
            **self._head_losses(answer["features"], truth, regions, valid, training=training),
        }

    def _proposal_losses(self, anchors, truth, scores, codes) -> dict[str, Any]:
        number, batch = self.options["anchor_samples"], truth["boxes"].shape[0]
        everywhere = ops.broadcast_to(anchors[None], (batch, *anchors.shape))
        ignored = matching.ignored_share(truth["labels"], everywhere)
        matched = matching.match_anchors(anchors, truth["boxes"], truth["present"], ignored)
        chosen = matching.sample(*matched, number=number, most_foreground=number // 2, seed=self.draws)
        scores = take_rows(ops.concatenate(scores, axis=1), chosen.places)
        codes = take_rows(ops.concatenate(codes, axis=1), chosen.places)
        wanted = take_rows(truth["boxes"], chosen.objects)
        codes_true = _codes(wanted, ops.take(anchors, chosen.places, axis=0), chosen.foreground)
        counted = ops.logical_or(chosen.foreground, chosen.background)
        return {
            "proposal_score_loss": losses.score_loss(chosen.foreground, chosen.background, scores),
            "proposal_box_loss": losses.box_loss(codes_true, codes, chosen.foreground, counted),
        }

    def _head_losses(self, features, truth, regions, valid, *, training: bool) -> dict[str, Any]:
        number = self.options["roi_samples"]
        positives = max(1, int(number * self.options["positive_share"]))
        regions = ops.concatenate([regions, truth["boxes"]], axis=1)
        valid = ops.concatenate([valid, truth["present"]], axis=1)
        ignored = matching.ignored_share(truth["labels"], regions)
        matched = matching.match_regions(regions, valid, truth["boxes"], truth["present"], ignored)
        chosen = matching.sample(*matched, number=number, most_foreground=positives, seed=self.draws)
        foreground, counted = chosen.foreground, ops.logical_or(chosen.foreground, chosen.background)
        boxes = take_rows(regions, chosen.places)
        wanted, classes = take_rows(truth["boxes"], chosen.objects), take_rows(truth["classes"], chosen.objects)
        classes = ops.where(foreground, ops.cast(classes, "int32"), 0)

        logits, codes = self.box_head(self.regions(features, boxes, size=BOX_BINS), training=training)
        rows = (*boxes.shape[:2], -1)
        logits = ops.reshape(logits, rows)
        codes = of_class(ops.reshape(codes, (*rows[:2], logits.shape[-1], 4)), classes)
        codes_true = _codes(wanted, boxes, foreground, weights=BOX_WEIGHTS)

        # Foreground comes first, and there is no more of it.
        boxes, foreground_first = boxes[:, :positives], foreground[:, :positives]
        share = crop_ids(truth["labels"], chosen.objects[:, :positives] + 1, boxes, size=2 * MASK_BINS)
        masks = self.mask_head(self.regions(features, boxes, size=MASK_BINS), training=training)
        masks = ops.moveaxis(ops.reshape(masks, (*boxes.shape[:2], *masks.shape[1:])), -1, 2)
        return {
            "class_loss": losses.class_loss(classes, counted, logits),
            "box_loss": losses.box_loss(codes_true, codes, foreground, counted),
            "mask_loss": losses.mask_loss(share, of_class(masks, classes[:, :positives]), foreground_first),
        }


def _network(options: Mapping[str, Any]) -> keras.Model:
    """Image (N, H, W, C) -> pyramid, scores and box codes, each a list over the levels."""
    image = layers.Input((None, None, options["channels"]), name="image")
    depth, sizes = BACKBONES[options["backbone"]], options["anchor_sizes"]
    stages = resnet(image, depth=depth, width=options["width"], batch_norm=options["batch_norm"])
    features = pyramid(stages, filters=options["fpn_channels"], levels=len(sizes))
    scores, codes = proposal_head(features, anchors=len(sizes[0]) * len(options["anchor_ratios"]))
    return keras.Model(image, [features, scores, codes], name="network")


def _codes(boxes, anchors, chosen, **options):
    """Codes of the chosen boxes (..., 4); elsewhere 0, as a box without area has no logarithm."""
    unit = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
    boxes, anchors = (ops.where(chosen[..., None], boxes_, unit) for boxes_ in (boxes, anchors))
    return ops.stop_gradient(encode(boxes, anchors, **options))
