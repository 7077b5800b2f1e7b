"""Slow and obvious references: loops over pixels, sets of pixels, exact fractions. No code of the product.

Scenes to run them on live in `tests.cells`.
"""

import math
from fractions import Fraction

import numpy as np


def pixel_counts(labels_true, labels_pred, ignore=None):
    """(tp, fp, fn, tn) of the foreground, pixel by pixel."""
    tp = fp = fn = tn = 0
    for place in np.ndindex(labels_true.shape):
        if ignore is not None and ignore[place]:
            continue
        truth, prediction = labels_true[place] > 0, labels_pred[place] > 0
        if truth and prediction:
            tp += 1
        elif prediction:
            fp += 1
        elif truth:
            fn += 1
        else:
            tn += 1
    return tp, fp, fn, tn


def objects(labels):
    """Label -> set of its pixels, background left out."""
    found = {}
    for place in np.ndindex(labels.shape):
        if labels[place]:
            found.setdefault(int(labels[place]), set()).add(place)
    return found


def iou_table(labels_true, labels_pred):
    """(true label, predicted label) -> IoU as a fraction, for every pair that shares a pixel."""
    table = {}
    for one, pixels_one in objects(labels_true).items():
        for other, pixels_other in objects(labels_pred).items():
            if pixels_one & pixels_other:
                table[one, other] = Fraction(len(pixels_one & pixels_other), len(pixels_one | pixels_other))
    return table


def best_matching(labels_true, labels_pred, threshold, strict=False):
    """(pairs, sum of their IoU) of the best one-to-one matching, every possibility tried."""
    limit = Fraction(str(threshold))
    candidates = [
        (one, other, iou)
        for (one, other), iou in iou_table(labels_true, labels_pred).items()
        if (iou > limit if strict else iou >= limit)
    ]

    def best(rest, used_true, used_pred):
        if not rest:
            return 0, Fraction(0)
        (one, other, iou), *rest = rest
        answers = [best(rest, used_true, used_pred)]
        if one not in used_true and other not in used_pred:
            pairs, total = best(rest, used_true | {one}, used_pred | {other})
            answers.append((pairs + 1, total + iou))
        return max(answers)

    return best(candidates, frozenset(), frozenset())


def seg(labels_true, labels_pred):
    """Jaccard of every true object with the predicted one that holds more than half of it: list of fractions."""
    values = []
    for pixels in objects(labels_true).values():
        value = Fraction(0)
        for other in objects(labels_pred).values():
            if len(pixels & other) > Fraction(len(pixels), 2):
                value = Fraction(len(pixels & other), len(pixels | other))
        values.append(value)
    return values


def components(mask, connectivity):
    """Flood fill from every unvisited foreground pixel in scan order."""
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if connectivity == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    labels = np.zeros(mask.shape, np.int32)
    label = 0
    for start in np.ndindex(mask.shape):
        if not mask[start] or labels[start]:
            continue
        label += 1
        stack = [start]
        labels[start] = label
        while stack:
            row, column = stack.pop()
            for down, right in steps:
                place = row + down, column + right
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and mask[place] and not labels[place]:
                    labels[place] = label
                    stack.append(place)
    return labels


def fill_holes(mask, connectivity):
    """Foreground plus every piece of background that never touches the border."""
    background = components(~mask, 12 - connectivity)
    filled = mask.copy()
    for pixels in objects(background).values():
        on_border = any(r in (0, mask.shape[0] - 1) or c in (0, mask.shape[1] - 1) for r, c in pixels)
        if not on_border:
            for place in pixels:
                filled[place] = True
    return filled


def depth(labels):
    """Distance of each cell's pixels to the nearest pixel of another label, infinite if there is none; 0 outside."""
    distances = np.zeros(labels.shape)
    for place in np.ndindex(labels.shape):
        if labels[place]:
            others = np.argwhere(labels != labels[place])
            distances[place] = min((math.dist(place, other) for other in others), default=math.inf)
    return distances
