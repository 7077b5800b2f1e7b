"""The measures against values that independent public tools gave (`tests/data/golden`)."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from tests import golden
from tests.golden import ADAPTERS, score

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden"

# Product's name -> where the tool's value stands in the entry.
NAMES = {
    "pixel_accuracy": {"accuracy": ["accuracy"]},
    "iou_binary": {
        "iou": ["jaccard_fg_zero_division_1"],
        "iou_background": ["iou_bg"],
        "frequency_weighted_iou": ["class_frequency_weighted"],
    },
    "dice_binary": {"dice": ["f1_zero_division_1"]},
    "pixel_error": {"pixel_error": ["pixel_error"]},
    "matching": {
        f"{key}@{threshold}": ["by_threshold", threshold, key]
        for threshold in ("0.5", "0.75", "0.9")
        for key in ("tp", "fp", "fn")
    },
    "matching_dataset": {
        key: [key] for key in ("tp", "fp", "fn", "precision", "recall", "accuracy", "f1", "panoptic_quality")
    },
    "pq": {"panoptic_quality": ["hovernet_padded", "pq"]},
    "multiclass_ignore255": {
        "pixel_accuracy": ["pixel_accuracy"],
        "iou_per_class": ["iou_per_class_0to3_zero_division_0"],
        "dice_per_class": ["dice_per_class"],
        "frequency_weighted_iou": ["class_frequency_weighted_iou"],
    },
    "aji": {"aji": ["aji_padded"], "aji_plus": ["aji_plus_padded"]},
    "boundary_iou": {f"dilation_ratio_{ratio}": [f"dilation_ratio_{ratio}"] for ratio in (0.02, 0.05, 0.1)},
    "hausdorff": {
        "hausdorff": ["connectivity1", "hd"],
        "hausdorff95": ["connectivity1", "hd95"],
        "average_surface_distance": ["connectivity1", "assd"],
    },
    "adapted_rand_error": {"are": ["are"]},
    "variation_of_information": {"split": ["H_pred_given_gt__split"], "merge": ["H_gt_given_pred__merge"]},
    "v_rand_v_info_labels": {
        "v_rand": ["v_rand", "fscore"],
        "v_rand_merge": ["v_rand", "precision"],
        "v_rand_split": ["v_rand", "recall"],
        "v_info": ["v_info", "fscore"],
    },
    "rand_index_all_pixels": {"rand_index": ["rand_index"]},
    "v_rand_after_thinning": {"v_rand": ["v_rand_thin", "fscore"], "v_info": ["v_info_thin"]},
    "warping_error": {"warping_error": ["warping_error"]},
    "glas_f1": {key: [key] for key in ("f1", "tp", "fp", "fn")},
    "glas_object_dice": {"object_dice": ["object_dice"]},
    "glas_object_hausdorff": {"object_hausdorff": ["object_hausdorff"]},
    "glas_pooled": {key: [key] for key in ("f1", "tp", "fp", "fn", "object_dice", "object_hausdorff")},
    "rank_sum": {key: [key] for key in ("ranks", "rank_sum", "final_rank")},
    "ctc": {name: ["py_ctcmetrics", name.upper()] for name in ("seg", "det", "tra", "lnk", "aogm")},
}
ENTRIES = [entry for entry in json.loads((FOLDER / "public.json").read_text())["entries"] if entry["measure"] in NAMES]


def load(name):
    if name is None:
        return None
    if isinstance(name, list):
        return [load(one) for one in name]
    if not name.endswith(".npz"):
        return FOLDER / name
    with np.load(FOLDER / name) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["id"] for entry in ENTRIES])
def test_equals_independent_tool(entry):
    data = {"threshold": entry["expected"].get("thresh"), **entry.get("data", {})}
    found = score(entry["measure"], load(entry["inputs"]), data)
    for name, path in NAMES[entry["measure"]].items():
        value = entry["expected"]
        for step in path:
            value = value[step]
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=entry["atol"], err_msg=name)


def test_the_adapter_holds_no_other_tool():
    tree = ast.parse(Path(golden.__file__).read_text())
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    packages = {module.split(".")[0] for module in froms | names}
    # numpy stacks the inputs, scipy.special turns probabilities into the logits that the losses start from.
    assert packages == {"numpy", "scipy", "cellseg", "pipelines"}
    assert {module for module in froms | names if module.startswith("scipy")} == {"scipy.special"}


def test_every_measure_has_a_case_and_an_adapter():
    assert {entry["measure"] for entry in ENTRIES} == set(NAMES) <= set(ADAPTERS)
