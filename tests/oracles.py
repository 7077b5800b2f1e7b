"""Slow and obvious references: loops over pixels, sets of pixels, exact fractions. No code of the product.

Scenes to run them on live in `tests.cells`.
"""

import itertools
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


def covers(labels_true, labels_pred):
    """(frame, true label) -> predicted label that holds more than half of it; lists of frames."""
    found = {}
    for frame, (one_true, one_pred) in enumerate(zip(labels_true, labels_pred, strict=True)):
        for label, pixels in objects(one_true).items():
            for other, others in objects(one_pred).items():
                if 2 * len(pixels & others) > len(pixels):
                    found[frame, label] = other
    return found


def links(table):
    """((frame, label), (frame, label)) -> whether it leads from a parent to a child; table = {label: track}."""
    found = {}
    for label, track in table.items():
        for frame in range(track.begin, track.end):
            found[(frame, label), (frame + 1, label)] = False
        if track.parent:
            found[(table[track.parent].end, track.parent), (track.begin, label)] = True
    return found


def aogm(labels_true, table_true, labels_pred, table_pred):
    """Operations of Matula 2015, counted cell by cell and link by link: {"NS": n, ...}."""
    covered = covers(labels_true, labels_pred)
    cells_true = [(frame, label) for frame, labels in enumerate(labels_true) for label in objects(labels)]
    cells_pred = [(frame, label) for frame, labels in enumerate(labels_pred) for label in objects(labels)]
    inside = {
        cell: [one for one in cells_true if one[0] == cell[0] and covered.get(one) == cell[1]] for cell in cells_pred
    }
    true_links, left = links(table_true), dict(links(table_true))
    counts = {
        "NS": sum(len(ones) - 1 for ones in inside.values() if len(ones) > 1),
        "FN": sum(cell not in covered for cell in cells_true),
        "FP": sum(not ones for ones in inside.values()),
        "ED": 0,
        "EA": 0,
        "EC": 0,
    }
    for (source, target), is_parent in links(table_pred).items():
        if len(inside[source]) == 1 and len(inside[target]) == 1:
            pair = inside[source][0], inside[target][0]
            if pair not in true_links:
                counts["ED"] += 1
            else:
                counts["EC"] += true_links[pair] != is_parent
                del left[pair]
    return counts | {"EA": len(left)}


def followed(labels_true, labels_pred):
    """(frame, true label) -> predicted label that covers it and no other true one."""
    covered = covers(labels_true, labels_pred)
    return {
        (frame, label): other
        for (frame, label), other in covered.items()
        if sum(one[0] == frame and by == other for one, by in covered.items()) == 1
    }


def complete_tracks(labels_true, table_true, labels_pred, table_pred):
    """CT: every pair of tracks tried."""
    found = followed(labels_true, labels_pred)
    complete = sum(
        (one.begin, one.end) == (other.begin, other.end)
        and all(found.get((frame, one.label)) == other.label for frame in range(one.begin, one.end + 1))
        for one in table_true.values()
        for other in table_pred.values()
    )
    return Fraction(2 * complete, len(table_true) + len(table_pred))


def track_fractions(labels_true, table_true, labels_pred, table_pred):
    """TF: every stretch of every true track tried."""
    found, best = followed(labels_true, labels_pred), []
    for one in table_true.values():
        whole = range(one.begin, one.end + 1)
        runs = [
            stop - start
            for start in whole
            for stop in range(start + 1, one.end + 2)
            if len({found.get((frame, one.label), 0) for frame in range(start, stop)} | {0}) == 2
            and all((frame, one.label) in found for frame in range(start, stop))
        ]
        if runs:
            best.append(Fraction(max(runs), len(whole)))
    return sum(best) / len(best) if best else Fraction(0)


def divisions(labels_true, table_true, labels_pred, table_pred, tolerance):
    """(TP, FP, FN) of BC(i): every way of giving the true children predicted ones tried."""
    found = followed(labels_true, labels_pred)

    def families(table):
        children = {label: [one for one in table.values() if one.parent == label] for label in table}
        return [(table[label], ones) for label, ones in children.items() if len(ones) > 1]

    def near(one, other, frame_one, frame_other, frame):
        return abs(frame_one - frame_other) <= tolerance and found.get((frame, one.label)) == other.label

    def same(family, other_family):
        (one, children), (other, others) = family, other_family
        if len(children) != len(others) or not near(one, other, one.end, other.end, min(one.end, other.end)):
            return False
        return any(
            all(near(a, b, a.begin, b.begin, max(a.begin, b.begin)) for a, b in zip(children, order, strict=True))
            for order in itertools.permutations(others)
        )

    true, pred = families(table_true), families(table_pred)
    pairs = [(i, j) for i, one in enumerate(true) for j, other in enumerate(pred) if same(one, other)]
    tp = max(
        size
        for size in range(len(pairs) + 1)
        for some in itertools.combinations(pairs, size)
        if len({i for i, _ in some}) == len({j for _, j in some}) == size
    )
    return tp, len(pred) - tp, len(true) - tp


def cell_cycle_accuracy(table_true, table_pred):
    """CCA as a fraction: the two distributions compared at every length; None without a true cycle."""

    def cycles(table):
        parents = [one.parent for one in table.values() if one.parent]
        divides = {label for label in table if parents.count(label) > 1}
        return [one.end - one.begin for one in table.values() if one.label in divides and one.parent in divides]

    true, pred = cycles(table_true), cycles(table_pred)
    if not true or not pred:
        return Fraction(0) if true else None
    return 1 - max(
        abs(
            Fraction(sum(one <= length for one in true), len(true))
            - Fraction(sum(one <= length for one in pred), len(pred))
        )
        for length in range(max(true + pred) + 1)
    )


def aji(labels_true, labels_pred):
    """Kumar 2017, algorithm 1, as a fraction; None where both are empty. Of equal partners the first in scan order."""
    trues, preds = objects(labels_true), objects(labels_pred)
    shared, union, used = 0, 0, set()
    for pixels in trues.values():
        overlapping = [(Fraction(len(pixels & other), len(pixels | other)), label) for label, other in preds.items()]
        best = max((iou for iou, _ in overlapping), default=0)
        if not best:
            union += len(pixels)
            continue
        equal = [label for iou, label in overlapping if iou == best]
        label = max(equal, key=lambda one: (len(preds[one]), _early(preds[one])))
        shared, union = shared + len(pixels & preds[label]), union + len(pixels | preds[label])
        used.add(label)
    union += sum(len(pixels) for label, pixels in preds.items() if label not in used)
    return Fraction(shared, union) if union else None


def _early(pixels):
    row, column = min(pixels)
    return -row, -column


def aji_plus(labels_true, labels_pred):
    """Every one-to-one pairing tried: that of the largest sum of IoU; None where both are empty."""
    trues, preds = objects(labels_true), objects(labels_pred)

    def best(rest, free):
        if not rest:
            return Fraction(0), 0
        first, *rest = rest
        answers = [best(rest, free)]
        for label in free:
            shared = len(trues[first] & preds[label])
            if shared:
                total, pixels = best(rest, free - {label})
                answers.append((total + Fraction(shared, len(trues[first] | preds[label])), pixels + shared))
        return max(answers)

    _, shared = best(list(trues), frozenset(preds))
    union = sum(map(len, trues.values())) + sum(map(len, preds.values())) - shared
    return Fraction(shared, union) if union else None


def pixel_pairs(labels_true, labels_pred, ignore=None):
    """(together in both, in the truth, in the prediction, all) of unordered pairs of different counted pixels."""
    places = [place for place in np.ndindex(labels_true.shape) if ignore is None or not ignore[place]]
    both = true = pred = pairs = 0
    for number, one in enumerate(places):
        for other in places[:number]:
            same_true, same_pred = labels_true[one] == labels_true[other], labels_pred[one] == labels_pred[other]
            both, true, pred, pairs = both + (same_true and same_pred), true + same_true, pred + same_pred, pairs + 1
    return both, true, pred, pairs


def entropy_terms(labels_true, labels_pred):
    """H(truth), H(prediction), H(both) in nats over the places, each place's labels given as hashable things."""
    num = len(labels_true)

    def entropy(things):
        return -sum(things.count(one) / num * math.log(things.count(one) / num) for one in set(things))

    both = list(zip(labels_true, labels_pred, strict=True))
    return entropy(list(labels_true)), entropy(list(labels_pred)), entropy(both)


def surface(mask, connectivity=1):
    """Places of a mask with a neighbour outside of it, or of the image; 1: four sides, 2: corners too."""
    found = []
    for row, column in np.argwhere(mask):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                r, c = row + down, column + right
                near = abs(down) + abs(right) <= connectivity
                inside = 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]
                if near and not (inside and mask[r, c]) and (row, column) not in found:
                    found.append((row, column))
    return found


def distances(places, others):
    """From each place to the nearest of the others."""
    return [min(math.dist(one, other) for other in others) for one in places]


def hausdorff(places, others):
    """Largest distance of a place of either set from the other set."""
    return max(*distances(places, others), *distances(others, places))


def band(mask, width):
    """Places of a mask at most `width` steps (corners allowed) from a place outside of it or of the image."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded) - 1
    return {(r, c) for r, c in np.argwhere(mask).tolist() if np.abs(outside - (r, c)).max(axis=1).min() <= width}


def glas(labels_true, labels_pred):
    """(tp, fp, fn, object Dice, object Hausdorff) of the contest; both sides must have objects."""
    trues, preds = objects(labels_true), objects(labels_pred)

    def partner(pixels, others):
        most = max(len(pixels & other) for other in others.values())
        if not most:
            return None
        equal = [label for label, other in others.items() if len(pixels & other) == most]
        return max(equal, key=lambda label: _early(others[label]))

    tp, dice, far = 0, 0.0, 0.0
    for ours, theirs in ((preds, trues), (trues, preds)):
        area = sum(map(len, ours.values()))
        for pixels in ours.values():
            label = partner(pixels, theirs)
            share = len(pixels) / area / 2
            if label is None:
                far += share * min(hausdorff(pixels, other) for other in theirs.values())
                continue
            both = len(pixels & theirs[label])
            tp += ours is preds and 2 * both > len(theirs[label])
            dice += share * 2 * both / (len(pixels) + len(theirs[label]))
            far += share * hausdorff(pixels, theirs[label])
    return tp, len(preds) - tp, len(trues) - tp, dice, far


def topology(mask):
    """(4-connected pieces of the mask, 8-connected pieces of what is not, the image framed by background)."""
    framed = np.pad(mask, 1)
    return int(components(framed, 4).max()), int(components(~framed, 8).max())


def gap(places, others):
    """What lies between two sets of pixels: least distance of their centres, less 1."""
    return min(math.dist(one, other) for one in places for other in others) - 1


def core(labels, margin):
    """Label -> its pixels farther than `margin` from every pixel of it with a 4-neighbour of another label."""
    found = {}
    for label, pixels in objects(labels).items():
        outline = [
            (row, column)
            for row, column in pixels
            for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            if 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1] and place not in pixels
        ]
        found[label] = {one for one in pixels if all(math.dist(one, other) > margin for other in outline)}
    return found


def kinds_of_cells(labels_true, labels_pred):
    """({true id: kind}, {predicted id: kind}) by sets of pixels and the rules of `cellseg.mistakes` in their words."""
    true, pred = ({i: set(np.flatnonzero(one == i)) for i in np.unique(one) if i} for one in (labels_true, labels_pred))

    def holds(outer, inner):
        return len(outer & inner) > len(inner) / 2

    kinds_true, kinds_pred = {}, dict.fromkeys(pred, "spurious")
    for label, cell in true.items():
        partners = [p for p, other in pred.items() if len(cell & other) / len(cell | other) > 0.5]
        inside = [p for p, other in pred.items() if holds(cell, other)]
        over = [p for p, other in pred.items() if holds(other, cell)]
        over = [p for p in over if sum(holds(pred[p], other) for other in true.values()) > 1]
        if partners:
            kinds_true[label] = "found"
        elif len(inside) > 1 and 2 * sum(len(cell & pred[p]) for p in inside) >= len(cell):
            kinds_true[label] = "split"
        else:
            kinds_true[label] = "merged" if over else "missed"
        named = {"found": partners, "split": inside, "merged": over, "missed": []}[kinds_true[label]]
        for p in named:
            # A predicted cell that is several things is the strongest of them.
            strength = ["spurious", "merged", "split", "found"].index
            kinds_pred[p] = max(kinds_pred[p], kinds_true[label], key=strength)
    return kinds_true, kinds_pred


def num_hills(height, mask, depth, least):
    """Hills of the heights {pixel: height} in a mask: at least `least` high, and more than `depth` above the pass.

    Pixels rise out of the water one by one, the highest first; where two islands meet, the lower summit is a hill of
    its own if it stands high enough above the water. The last island is a hill in any case.
    """
    summit, island, summits = {}, {}, []
    for place in sorted(zip(*np.nonzero(mask), strict=True), key=lambda place: -height[place]):
        island[place], summit[place] = place, height[place]
        around = [(place[0] + i, place[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        for other in {island[other] for other in around if other in island} - {place}:
            own = island[place]
            low, high = sorted([own, other], key=summit.get)
            if own == other:
                continue
            if summit[low] - height[place] > depth:
                summits.append(summit[low])
            island.update({pixel: high for pixel, at in island.items() if at == low})
    summits += [summit[top] for top in set(island.values())]
    return sum(value >= least for value in summits)
