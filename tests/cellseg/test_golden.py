"""The measures against values that independent public tools gave (`tests/data/golden`)."""

import json
from pathlib import Path

import numpy as np
import pytest

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
    "ctc": {"seg": ["py_ctcmetrics", "SEG"]},
}
ENTRIES = [entry for entry in json.loads((FOLDER / "public.json").read_text())["entries"] if entry["measure"] in NAMES]


def load(name):
    if isinstance(name, list):
        return [load(one) for one in name]
    if not name.endswith(".npz"):
        return FOLDER / name
    with np.load(FOLDER / name) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["id"] for entry in ENTRIES])
def test_equals_independent_tool(entry):
    data = {"threshold": entry["expected"].get("thresh")}
    found = score(entry["measure"], load(entry["inputs"]), data)
    for name, path in NAMES[entry["measure"]].items():
        value = entry["expected"]
        for step in path:
            value = value[step]
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=entry["atol"], err_msg=name)


def test_every_measure_has_a_case_and_an_adapter():
    assert {entry["measure"] for entry in ENTRIES} == set(NAMES) <= set(ADAPTERS)
