"""Adapter between the project's measures and tables of golden values: it calls and renames, nothing more.

`score(measure, inputs, data)` answers with the product's own numbers. `inputs` is a dict of arrays (`gt`, `pred`), or a
list of such dicts for a pooled measure, or a CTC folder; `data` holds the parameters. The formulas are in `cellseg`.
"""

import numpy as np
from scipy.special import logit

from cellseg.losses import Dice, FocalTversky, Tversky, dice_coefficient
from cellseg.metrics import (
    boundary,
    classes,
    dice,
    frequency_weighted_iou,
    glas,
    iou,
    objects,
    panoptic_quality,
    pixel,
    pixel_accuracy,
    rand,
    ranks,
)
from cellseg.metrics.sequence import evaluate_sequence
from cellseg.metrics.warping import warping_error
from cellseg.models.unet import output_size, unet
from pipelines.elastic import deform, grid_field
from pipelines.sources.pairs import labels_of_mask
from pipelines.weight_maps import border_ridge

CLASSES = 4  # the multi-class cases hold classes 0..3
UNANNOTATED = 255


def score(measure, inputs, data):
    return ADAPTERS[measure](inputs, data)


def _pixel_accuracy(inputs, data):
    return {"accuracy": pixel_accuracy(inputs["gt"], inputs["pred"])}


def _iou_binary(inputs, data):
    return {
        "iou": iou(inputs["gt"], inputs["pred"]),
        "iou_background": pixel.background_iou(inputs["gt"], inputs["pred"]),
        "frequency_weighted_iou": frequency_weighted_iou(inputs["gt"], inputs["pred"]),
    }


def _dice_binary(inputs, data):
    return {"dice": dice(inputs["gt"], inputs["pred"])}


def _pixel_error(inputs, data):
    return {"pixel_error": pixel.pixel_error(inputs["gt"], inputs["pred"])}


def _matching(inputs, data):
    found = {}
    for threshold in (0.5, 0.75, 0.9):
        scores = objects.match_scores(objects.match_counts(inputs["gt"], inputs["pred"], threshold=threshold))
        found |= {f"{key}@{threshold}": scores[key] for key in ("tp", "fp", "fn")}
    return found


def _matching_dataset(inputs, data):
    counts = sum(objects.match_counts(one["gt"], one["pred"], threshold=data["threshold"]) for one in inputs)
    # stardist gives 0 for a ratio without a denominator.
    return objects.match_scores(counts, undefined=0.0)


def _pq(inputs, data):
    return {"panoptic_quality": panoptic_quality(inputs["gt"], inputs["pred"])}


def _multiclass(inputs, data):
    matrix = classes.confusion_matrix(inputs["gt"], inputs["pred"], num_classes=CLASSES, ignore_class=UNANNOTATED)
    return {
        "pixel_accuracy": classes.multiclass_pixel_accuracy(matrix),
        # scikit-learn gives 0 for a class that is in neither.
        "iou_per_class": classes.iou_per_class(matrix, undefined=0.0),
        "dice_per_class": classes.dice_per_class(matrix, undefined=0.0),
        "frequency_weighted_iou": classes.multiclass_frequency_weighted_iou(matrix),
    }


def _aji(inputs, data):
    # HoVer-Net's program takes the lower id of two equal partners.
    return {
        "aji": objects.aji(inputs["gt"], inputs["pred"], ties="id"),
        "aji_plus": objects.aji_plus(inputs["gt"], inputs["pred"]),
    }


def _boundary_iou(inputs, data):
    # The tool divides 0 by 0 where both are empty.
    return {
        f"dilation_ratio_{ratio}": boundary.boundary_iou(
            inputs["gt"], inputs["pred"], dilation_ratio=ratio, undefined=float("nan")
        )
        for ratio in (0.02, 0.05, 0.1)
    }


def _hausdorff(inputs, data):
    names = ("hausdorff", "hausdorff95", "average_surface_distance")
    return {name: getattr(boundary, name)(inputs["gt"], inputs["pred"]) for name in names}


def _adapted_rand_error(inputs, data):
    return {"are": rand.adapted_rand_error(inputs["gt"], inputs["pred"])}


def _variation_of_information(inputs, data):
    return {
        "split": rand.vi_split(inputs["gt"], inputs["pred"]),
        "merge": rand.vi_merge(inputs["gt"], inputs["pred"]),
    }


def _rand_index(inputs, data):
    return {"rand_index": rand.rand_index(inputs["gt"], inputs["pred"])}


def _v_rand_labels(inputs, data):
    # Fiji's F is 0 where it is undefined; its precision and recall are NaN there.
    return {
        "v_rand": rand.v_rand(inputs["gt"], inputs["pred"], undefined=0.0),
        "v_rand_merge": rand.v_rand_merge(inputs["gt"], inputs["pred"]),
        "v_rand_split": rand.v_rand_split(inputs["gt"], inputs["pred"]),
        "v_info": rand.v_info(inputs["gt"], inputs["pred"], undefined=0.0),
    }


def _v_rand_after_thinning(inputs, data):
    # The tool was run at this threshold alone.
    return {
        "v_rand": rand.v_rand(inputs["gt"], inputs["pred"], thresholds=(0.5,), undefined=0.0),
        "v_info": rand.v_info(inputs["gt"], inputs["pred"], thresholds=(0.5,), undefined=0.0),
    }


def _warping_error(inputs, data):
    return {"warping_error": warping_error(inputs["gt"], inputs["pred"])}


def _glas_pooled(inputs, data):
    # The contest's programs take the lower id of two equal partners, and divide 0 by 0 without a TP.
    counts = sum(glas.glas_counts(one["gt"], one["pred"], ties="id") for one in inputs)
    return glas.glas_scores(counts, undefined=float("nan"))


def _glas(inputs, data):
    return _glas_pooled([inputs], data)


def _rank_sum(inputs, data):
    ranking = ranks.rank_sum(data["scores"], higher_is_better=data["higher_is_better"])
    return {"ranks": ranking.ranks, "rank_sum": ranking.rank_sum, "final_rank": ranking.final_rank}


def _ctc(folder, data):
    measures = ["seg", "det", "tra", "lnk", "aogm"]
    return evaluate_sequence(folder / "01_GT", folder / "01_RES", measures)["measures"]


def _unet_weight_map(inputs, data):
    labels = labels_of_mask(inputs["mask"].astype("int32"))
    return {
        "border_w10_s5": border_ridge(labels, w0=10.0, sigma=5.0),
        "border_w3_s2p5": border_ridge(labels, w0=3.0, sigma=2.5),
    }


def _elastic_grid3x3(inputs, data):
    image = inputs["image"]
    return {"image_mean": deform(image, grid_field(inputs["displacement"], image.shape), order=3).mean()}


def _elastic_simard(inputs, data):
    # The tool's answer is 0 where a pixel is read outside of the image: `out` equals scipy's mode "constant" to the
    # last bit, and differs by 0.59 from "reflect", which the note names.
    field = np.stack([inputs["dx"], inputs["dy"]])
    return {"out": deform(inputs["image"], field, order=1, border="constant")}


def _soft_losses(inputs, data):
    y_true, y_pred = (inputs[name][..., None] for name in ("y_true", "y_pred"))
    logits = logit(y_pred)  # the losses start there
    tversky = {"alpha": 0.3, "beta": 0.7, "pooled": True}
    return {
        "dice": float(Dice(pooled=True)(y_true, logits)),
        "vnet_dice_coefficient": float(dice_coefficient(y_true, y_pred, squared=True, pooled=True)),
        "tversky_a0.3_b0.7": float(Tversky(**tversky)(y_true, logits)),
        "focal_tversky_a0.3_b0.7_pow_0.75": float(FocalTversky(power=0.75, **tversky)(y_true, logits)),
    }


def _unet_valid_sizes(inputs, data):
    return {"output_size": {str(size): output_size(size, depth=data["depth"]) for size in data["sizes"]}}


def _unet_params(inputs, data):
    ups = {"T2": "transposed2", "T3": "transposed3"}
    network = unet(
        (None, None, data.get("cin", 1)),
        outputs=data.get("cout", 1),
        filters=data.get("base", 64),
        depth=data.get("depth", 4),
        up=ups[data.get("up", "T2")],
        batch_norm=bool(data.get("bn", False)),
    )
    return {"total_params": network.count_params()}


ADAPTERS = {
    "soft_losses": _soft_losses,
    "pixel_accuracy": _pixel_accuracy,
    "iou_binary": _iou_binary,
    "dice_binary": _dice_binary,
    "pixel_error": _pixel_error,
    "matching": _matching,
    "matching_dataset": _matching_dataset,
    "pq": _pq,
    "multiclass_ignore255": _multiclass,
    "aji": _aji,
    "boundary_iou": _boundary_iou,
    "hausdorff": _hausdorff,
    "adapted_rand_error": _adapted_rand_error,
    "variation_of_information": _variation_of_information,
    "rand_index_all_pixels": _rand_index,
    "v_rand_v_info_labels": _v_rand_labels,
    "v_rand_after_thinning": _v_rand_after_thinning,
    "warping_error": _warping_error,
    "glas_f1": _glas,
    "glas_object_dice": _glas,
    "glas_object_hausdorff": _glas,
    "glas_pooled": _glas_pooled,
    "rank_sum": _rank_sum,
    "ctc": _ctc,
    "elastic_grid3x3": _elastic_grid3x3,
    "elastic_simard": _elastic_simard,
    "unet_weight_map": _unet_weight_map,
    "unet_valid_sizes": _unet_valid_sizes,
    "unet_params": _unet_params,
}
