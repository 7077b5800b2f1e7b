"""Measures of whole tracks and divisions: complete tracks CT, track fractions TF, branching BC(i), cell cycles CCA.

They take a `cellseg.metrics.tracking.Tracking`. Measures of single cells and links live in `cellseg.metrics.ctc`.

A predicted track follows a true one in a frame if it holds more than half of its pixels there, and of no other true
cell. All are in [0, 1], higher is better, and all need both tables of tracks.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from cellseg.metrics.measure import ratio
from cellseg.metrics.tracking import Tracking, Tracks
from pipelines.tracks import Track


def ct(tracking: Tracking) -> float:
    """Complete tracks: 2 C / (true tracks + predicted tracks), C = true tracks followed completely.

    A true track is complete if one predicted track follows it in each of its frames, and begins and ends with it.
    Parents do not matter.

    Returns:
        Truth and prediction both empty: NaN; one of the two empty: 0.

    Reference:
        Ulman et al. 2017, https://doi.org/10.1038/nmeth.4473
    """
    tracks_true, tracks_pred = tracking.tables()
    complete = 0
    for track in tracks_true.values():
        first, *others = set(tracking.answers(track))
        if first and not others:
            complete += (track.begin, track.end) == (tracks_pred[first].begin, tracks_pred[first].end)
    return ratio(2 * complete, len(tracks_true) + len(tracks_pred))


def tf(tracking: Tracking) -> float:
    """Track fractions: longest run of frames in which one predicted track follows a true one, over its length.

    The mean over the true tracks that are followed in at least one frame.

    The challenge's program and py-ctcmetrics pass over some fractions, depending on the order of the ids; `tf_ctc` does
    as they do.

    Returns:
        Truth empty: NaN. No true track followed (prediction empty): 0, as py-ctcmetrics says.

    Reference:
        Ulman et al. 2017, https://doi.org/10.1038/nmeth.4473
    """
    best: dict[int, float] = {}
    for fractions in _fractions(tracking).values():
        for label, fraction in fractions.items():
            best[label] = max(best.get(label, 0), fraction)
    return _mean_fraction(tracking, best.values())


def tf_ctc(tracking: Tracking) -> float:
    """`tf` as the challenge's program and py-ctcmetrics 1.3.3 count it, to compare with published numbers.

    They go through the predicted tracks by id, and through the true ones of each by id, and leave a predicted track as
    soon as it follows a true one from end to end: what it does to true tracks of higher ids is not seen. The number
    can change when ids are permuted.
    """
    best: dict[int, float] = {}
    for _, fractions in sorted(_fractions(tracking).items()):
        for label, fraction in sorted(fractions.items()):
            if best.get(label) == 1:
                continue
            best[label] = max(best.get(label, 0), fraction)
            if fraction == 1:
                break
    return _mean_fraction(tracking, best.values())


def bc(tracking: Tracking, *, tolerance: int = 1) -> float:
    """Branching correctness BC(i): F1 score of the divisions, 2 TP / (2 TP + FP + FN), with a tolerance of i frames.

    A division is a track with at least two children in the table. Predicted and true division are one (TP) if
    - they have as many children,
    - the parents end at most i frames apart, and the predicted parent follows the true one in the last frame that both
      have,
    - each true child has its own predicted child that begins at most i frames apart and follows it in the frame in
      which the later of the two begins.

    As py-ctcmetrics 1.3.3 (its rule since its issue 22), but for two things that it does only in odd cases: there a
    true division can be found twice, and of several children that fit the first in the table is taken. Here both are
    matched one to one. traccuracy's F1 with a frame buffer walks along the lineages instead, knows divisions in two
    only, and lets daughters match in any later frame.

    Args:
        tracking: The compared sequence.
        tolerance: i, in frames, >= 0.

    Returns:
        Truth without division: NaN; prediction without: 0.

    Reference:
        Ulman et al. 2017, https://doi.org/10.1038/nmeth.4473; http://celltrackingchallenge.net/evaluation-methodology/
    """
    tp, fp, fn = division_counts(tracking, tolerance=tolerance)
    return ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else float("nan")


def division_f1(tracking: Tracking) -> float:
    """`bc` with a tolerance of 1 frame."""
    return bc(tracking, tolerance=1)


def division_counts(tracking: Tracking, *, tolerance: int = 1) -> tuple[int, int, int]:
    """(TP, FP, FN) of `bc`."""
    tracks_true, tracks_pred = tracking.tables()
    divisions_true, divisions_pred = _divisions(tracks_true), _divisions(tracks_pred)
    by_end: dict[int, list[Track]] = {}
    for parent in divisions_true:
        by_end.setdefault(tracks_true[parent].end, []).append(tracks_true[parent])
    pairs = [
        (one.label, label)
        for label, children in divisions_pred.items()
        for end in range(tracks_pred[label].end - tolerance, tracks_pred[label].end + tolerance + 1)
        for one in by_end.get(end, ())
        if _same_division(tracking, one, divisions_true[one.label], tracks_pred[label], children, tolerance)
    ]
    tp = _most_pairs(pairs)
    return tp, len(divisions_pred) - tp, len(divisions_true) - tp


def cca(tracking: Tracking) -> float:
    """Cell cycle accuracy: 1 - the largest difference between the cumulative distributions of cycle lengths.

    A cell cycle is a track that begins with a division and ends with one, by the table alone; its length is
    end - begin, in frames. Nothing is matched: the right lengths of wrong cells score 1. As py-ctcmetrics; traccuracy
    counts from division to division across gaps, and joins a track with its only child.

    Returns:
        Truth without a complete cycle: NaN; prediction without: 0 (traccuracy says NaN).

    Reference:
        Ulman et al. 2017, https://doi.org/10.1038/nmeth.4473
    """
    true, pred = (np.sort(_cycle_lengths(tracks)) for tracks in tracking.tables())
    if not true.size:
        return float("nan")
    if not pred.size:
        return 0.0
    lengths = np.concatenate([true, pred])
    shares = [np.searchsorted(one, lengths, side="right") / len(one) for one in (true, pred)]
    return float(1 - np.abs(shares[0] - shares[1]).max())


def _fractions(tracking: Tracking) -> dict[int, dict[int, float]]:
    """Predicted label -> true label -> longest run over the true track's length."""
    tracks_true, _ = tracking.tables()
    found: dict[int, dict[int, float]] = {}
    for track in tracks_true.values():
        answers = tracking.answers(track)
        for label, run in groupby(answers):
            if label:
                fractions = found.setdefault(label, {})
                fractions[track.label] = max(fractions.get(track.label, 0), len(list(run)) / len(answers))
    return found


def _mean_fraction(tracking: Tracking, fractions: Iterable[float]) -> float:
    if not tracking.tables()[0]:
        return float("nan")
    followed = list(fractions)
    return ratio(sum(followed), len(followed), undefined=0.0)


def _divisions(tracks: Tracks) -> dict[int, list[Track]]:
    """Parent -> children, for parents of at least two."""
    children: dict[int, list[Track]] = {}
    for track in tracks.values():
        if track.parent:
            children.setdefault(track.parent, []).append(track)
    return {parent: several for parent, several in children.items() if len(several) > 1}


def _same_division(
    tracking: Tracking,
    parent_true: Track,
    children_true: Sequence[Track],
    parent_pred: Track,
    children_pred: Sequence[Track],
    tolerance: int,
) -> bool:
    if len(children_true) != len(children_pred):
        return False
    if tracking.answer(parent_true.label, min(parent_true.end, parent_pred.end)) != parent_pred.label:
        return False
    pairs = [
        (one.label, other.label)
        for one in children_true
        for other in children_pred
        if abs(one.begin - other.begin) <= tolerance
        and tracking.answer(one.label, max(one.begin, other.begin)) == other.label
    ]
    return _most_pairs(pairs) == len(children_true)


def _most_pairs(pairs: Sequence[tuple[int, int]]) -> int:
    """Size of the largest set of pairs in which nothing stands twice."""
    firsts, seconds = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    if len(firsts) == len(pairs) == len(seconds):
        return len(pairs)
    rows, columns = (np.unique([pair[side] for pair in pairs], return_inverse=True)[1] for side in (0, 1))
    graph = csr_array((np.ones(len(pairs), bool), (rows, columns)), shape=(len(firsts), len(seconds)))
    return int(np.count_nonzero(maximum_bipartite_matching(graph) >= 0))


def _cycle_lengths(tracks: Tracks) -> np.ndarray:
    divisions = _divisions(tracks)
    return np.array(
        [one.end - one.begin for one in tracks.values() if one.label in divisions and one.parent in divisions]
    )
