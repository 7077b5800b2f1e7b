import cv2
import numpy as np
import pytest

from cellseg import figures
from cellseg.error_analysis import ErrorAnalysis
from tests.cells import empty, merged_pair, one_cell, two_touching


def read(png):
    assert png.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def analysed(*scenes, brightness=0.5):
    analysis = ErrorAnalysis()
    for labels_true, labels_pred in scenes:
        image = np.full((*labels_true.shape, 1), brightness, np.float32)
        analysis.add(image, labels_true, labels_pred)
    return analysis.result()


def coloured(picture, first, last):
    """Pixels of the bars, which are blue or orange, in a strip of the picture; texts and lines are grey."""
    width = picture.shape[1]
    part = picture[:, int(first * width) : int(last * width)]
    return int((part.max(axis=2) - part.min(axis=2) > 60).sum())


def row_of_cells(number):
    labels = np.zeros((60, 12 * number), np.int32)
    for label in range(1, number + 1):
        labels[20 : 30 + label, 12 * label - 10 : 12 * label - 2] = label
    return labels


@pytest.mark.parametrize("draw", [figures.recall_by_fact, figures.merges_and_membranes])
@pytest.mark.parametrize(
    "scenes",
    [[], [(empty(), one_cell())], [(one_cell(), empty())], [(one_cell(), one_cell())], [merged_pair()]],
    ids=["no image", "no cell", "one missed", "one found", "two"],
)
def test_any_analysis_can_be_drawn(draw, scenes):
    assert read(draw(analysed(*scenes))).shape == (450, 1440, 3)


def test_bars_are_as_high_as_the_recall():
    labels = row_of_cells(20)
    none, half, every = (
        coloured(read(figures.recall_by_fact(analysed((labels, np.where(labels <= found, labels, 0))))), 0.71, 1)
        for found in (0, 10, 20)
    )
    assert none == 0  # the panel of the size, whose five bins have four cells each
    assert half == pytest.approx(every / 2, rel=0.02)


def test_each_fact_has_its_panel():
    labels = row_of_cells(20)
    # The small cells, which are those at the left, are missed: the size's panel, at the right, loses its first bars.
    right = read(figures.recall_by_fact(analysed((labels, np.where(labels > 10, labels, 0)))))
    left = read(figures.recall_by_fact(analysed((labels, np.where(labels <= 10, labels, 0)))))
    assert coloured(right, 0.71, 0.83) == 0 < coloured(right, 0.86, 1)
    assert coloured(left, 0.71, 0.83) > 0 == coloured(left, 0.9, 1)


def test_merged_pairs_are_drawn_at_their_gap():
    labels = two_touching()
    assert coloured(read(figures.merges_and_membranes(analysed((labels, labels)))), 0, 0.5) == 0
    merged = read(figures.merges_and_membranes(analysed(merged_pair())))
    assert coloured(merged, 0.05, 0.12) > 0 == coloured(merged, 0.14, 0.5)


def test_background_inside_cells_is_drawn():
    labels = np.zeros((24, 24), np.int32)
    labels[2:22, 2:22] = 1
    pierced = labels.copy()
    pierced[11:13] = 0
    whole = figures.merges_and_membranes(analysed((labels, labels)))
    assert whole != figures.merges_and_membranes(analysed((labels, pierced)))


def test_long_names_of_bins_are_broken():
    from cellseg.figures.errors import _span

    assert _span(163.2, 247.9, ".0f") == "163–248"
    assert _span(1024, 1620, ".0f") == "1024–1620"
    assert _span(10240, 16200, ".0f") == "10240–\n16200"
    assert _span(0.501, 0.503, ".2f") == "0.50"
