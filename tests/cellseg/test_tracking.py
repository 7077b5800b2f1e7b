import numpy as np
import pytest
from skimage.draw import disk

from cellseg.metrics.biological import ct, division_f1
from cellseg.metrics.ctc import tra
from cellseg.metrics.tracking import compare_tracking
from cellseg.tracking import USUAL, Costs, Options, follow
from cellseg.tracking.cells import find_cells, usual_diameter
from cellseg.tracking.drift import common_shift, local_motion
from cellseg.tracking.hypotheses import Divisions, Links, move, possible_divisions, possible_links
from cellseg.tracking.linking import _Linker
from cellseg.tracking.pasts import Past
from cellseg.tracking.selection import assign, select
from pipelines.errors import InputError
from pipelines.tracks import Track

SHAPE = (60, 80)


def scene(*frames, shape=SHAPE):
    """Labels of frames given as {id: (row, column, radius)}."""
    made = []
    for cells in frames:
        labels = np.zeros(shape, np.int32)
        for cell, (row, column, radius) in cells.items():
            labels[disk((row, column), radius, shape=shape)] = cell
        made.append(labels)
    return made


def tracked(frames, options=USUAL, numbers=None):
    """(table as rows, relabelled frames)."""
    numbers = range(len(frames)) if numbers is None else numbers
    lineage = follow(zip(numbers, frames, strict=True), options)
    rows = [(one.label, one.begin, one.end, one.parent) for one in lineage.tracks.values()]
    return rows, [lineage.relabel(one, number) for number, one in zip(numbers, frames, strict=True)]


def moving(num_frames=5):
    """Two disks that drift two pixels a frame, one to the right, one to the left."""
    return scene(*({1: (15, 10 + 2 * t, 6), 2: (40, 60 - 2 * t, 6)} for t in range(num_frames)))


def dividing():
    """A disk of radius 8 becomes two of radius 5.5, side by side in its place, which go apart; another stays."""
    parent = [{1: (30, 30, 8), 9: (10, 70, 6)}] * 3
    daughters = [{1: (30, 24 - t, 5.5), 2: (30, 36 + t, 5.5), 9: (10, 70, 6)} for t in range(3)]
    return scene(*parent, *daughters)


def busy(num_frames=12, seed=0):
    """Twenty disks that wander, four of which divide in frame 5; the ids are those of the tracks."""
    rng = np.random.default_rng(seed)
    grid = [np.array([24.0 + 36 * row, 30.0 + 44 * column]) for row in range(5) for column in range(4)]
    places = dict(enumerate(grid, start=1))
    parents = {cell: 0 for cell in places}
    born, ended, frames = dict.fromkeys(places, 0), {}, []
    for frame in range(num_frames):
        if frame == 5:
            for cell in (1, 6, 11, 16):
                place = places.pop(cell)
                ended[cell] = 4
                for side in (-6, 6):
                    daughter = max(parents) + 1
                    places[daughter] = place + np.array([0, side])
                    parents[daughter], born[daughter] = cell, 5
        for cell in places:
            places[cell] = places[cell] + rng.normal(0, 1.2, 2)
        radius = {cell: 5.5 if parents[cell] else 8 for cell in places}
        frames.append({cell: (*place, radius[cell]) for cell, place in places.items()})
    table = {cell: Track(cell, born[cell], ended.get(cell, num_frames - 1), parent) for cell, parent in parents.items()}
    return scene(*frames, shape=(200, 190)), table


def permuted(frames, seed=1):
    rng = np.random.default_rng(seed)
    made = []
    for labels in frames:
        ids = np.unique(labels[labels > 0])
        names = np.zeros(labels.max() + 1, np.int32)
        names[ids] = rng.permutation(len(ids)) + 1
        made.append(names[labels])
    return made


def test_moving_disks_keep_their_tracks():
    rows, frames = tracked(moving())
    assert rows == [(1, 0, 4, 0), (2, 0, 4, 0)]
    for before, after in zip(moving(), frames, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_division_ends_the_parent():
    rows, frames = tracked(dividing())
    assert rows == [(1, 0, 5, 0), (2, 0, 2, 0), (3, 3, 5, 2), (4, 3, 5, 2)]
    assert frames[2][30, 30] == 2 and {frames[5][30, 22], frames[5][30, 38]} == {3, 4}


def test_without_divisions_a_daughter_is_a_new_cell():
    rows, _ = tracked(dividing(), Options(divisions=False))
    assert [row[3] for row in rows] == [0, 0, 0] and [row[1] for row in rows] == [0, 0, 3]


def test_a_cell_that_appears_beside_another_is_no_daughter():
    # The first disk keeps its size and place.
    first = {1: (30, 30, 8)}
    rows, _ = tracked(scene(first, first, first | {2: (30, 52, 5)}, first | {2: (30, 52, 5)}))
    assert rows == [(1, 0, 3, 0), (2, 2, 3, 0)]


def test_a_cell_that_is_cut_in_two_for_one_frame_has_not_divided():
    frames = scene(*[{1: (30, 30, 8), 9: (10, 70, 6)}] * 5)
    frames[2][:30][frames[2][:30] == 1] = 4
    rows, _ = tracked(frames)
    assert len(rows) == 3
    assert [row[3] for row in rows] == [0, 0, 0] and sum(row[1:3] == (0, 4) for row in rows) == 2
    # In the last frame nobody knows yet: it is a division.
    assert sum(row[3] > 0 for row in tracked(frames[:3])[0]) == 2


def test_a_daughter_that_is_lost_at_once_is_a_daughter():
    frames = dividing()
    for labels in frames[4:]:
        labels[labels == 2] = 0
    rows, _ = tracked(frames)
    assert sorted(row[1:] for row in rows) == [(0, 2, 0), (0, 5, 0), (3, 3, rows[1][0]), (3, 5, rows[1][0])]


@pytest.mark.parametrize("missing, max_gap, found", [(1, 3, True), (3, 3, True), (4, 3, False), (1, 0, False)])
def test_gaps(missing, max_gap, found):
    whole = moving(9)
    frames = [np.where((labels == 2) & (3 <= t < 3 + missing), 0, labels) for t, labels in enumerate(whole)]
    rows, _ = tracked(frames, Options(max_gap=max_gap, fill_gaps=False))
    # The challenge: a track is seen in each frame it lives in, so that what comes back is a child.
    assert rows == [(1, 0, 8, 0), (2, 0, 2, 0), (3, 3 + missing, 8, 2 if found else 0)]


def test_a_gap_is_filled_where_there_is_room():
    whole = moving(7)
    frames = [np.where((labels == 2) & (3 <= t < 5), 0, labels) for t, labels in enumerate(whole)]
    rows, filled = tracked(frames)
    assert rows == [(1, 0, 6, 0), (2, 0, 6, 0)]
    for t in (3, 4):
        # The disk moves evenly by whole pixels: what is filled is what was taken away.
        np.testing.assert_array_equal(filled[t], whole[t])


def test_a_gap_under_another_cell_is_not_filled():
    frames = scene({1: (30, 20, 8)}, {1: (30, 40, 30)}, {1: (30, 20, 8)})
    assert follow(enumerate(frames)).num_filled == 0


def test_cells_enter_and_leave():
    frames = scene({1: (30, 30, 6), 2: (30, 75, 6)}, {1: (30, 30, 6)}, {1: (30, 30, 6), 3: (3, 3, 6)})
    assert tracked(frames)[0] == [(1, 0, 2, 0), (2, 0, 0, 0), (3, 2, 2, 0)]


def test_cells_that_pass_each_other_closely():
    # A small disk goes by a large one: size tells them apart.
    frames = scene(*({1: (20, 20 + 4 * t, 4), 2: (34, 40, 9)} for t in range(10)))
    rows, made = tracked(frames)
    assert rows == [(1, 0, 9, 0), (2, 0, 9, 0)]
    assert made[9][20, 56] == 1 and made[9][34, 40] == 2


def test_permuted_ids_give_the_same_tracks():
    frames, _ = busy()
    expected, labels = tracked(frames)
    for seed in range(3):
        rows, relabelled = tracked(permuted(frames, seed))
        assert rows == expected
        np.testing.assert_array_equal(np.array(relabelled), np.array(labels))


def test_a_busy_scene_is_tracked_without_a_fault():
    frames, table = busy()
    lineage = follow(enumerate(permuted(frames)))
    labels = [lineage.relabel(one, t) for t, one in enumerate(permuted(frames))]
    scored = compare_tracking(frames, table, labels, lineage.tracks)
    assert (tra(scored), division_f1(scored), ct(scored)) == (1.0, 1.0, 1.0)
    assert lineage.num_divisions == 4 and lineage.num_gaps == 0


def test_magnified_labels_have_the_same_tracks():
    frames, _ = busy()
    large = [np.kron(labels, np.ones((3, 3), np.int32)) for labels in frames]
    assert tracked(large)[0] == tracked(frames)[0]


def test_a_stage_that_jumps_takes_all_cells_along():
    frames, _ = busy(4)
    # Nothing reaches over the border: the tracks are those of the scene that stays.
    padded = [np.pad(labels, 30) for labels in frames]
    jumped = [padded[0], padded[1], *(np.roll(labels, (17, -21), axis=(0, 1)) for labels in padded[2:])]
    assert tracked(jumped)[0] == tracked(padded)[0] == [(cell, 0, 3, 0) for cell in range(1, 21)]


def test_one_frame():
    assert tracked(moving(1))[0] == [(1, 0, 0, 0), (2, 0, 0, 0)]


def test_no_frame_and_no_cell():
    assert follow([]).tracks == {}
    assert tracked([np.zeros(SHAPE, np.int32)] * 3)[0] == []


def test_an_empty_frame_in_the_middle():
    frames = moving()
    frames[2] = np.zeros(SHAPE, np.int32)
    assert tracked(frames, Options(fill_gaps=False))[0] == [(1, 0, 1, 0), (2, 0, 1, 0), (3, 3, 4, 1), (4, 3, 4, 2)]
    assert tracked(frames)[0] == [(1, 0, 4, 0), (2, 0, 4, 0)]


@pytest.mark.parametrize("jump, parents", [(1, [0, 0, 1, 2]), (3, [0, 0, 1, 2]), (4, [0, 0, 0, 0])])
def test_frames_that_are_left_out(jump, parents):
    # Standing cells: frames 0, 1, then some missing, then two more.
    frames = moving(1) * 4
    rows, _ = tracked(frames, numbers=[5, 6, 7 + jump, 8 + jump])
    assert [row[1:3] for row in rows] == [(5, 6), (5, 6), (7 + jump, 8 + jump), (7 + jump, 8 + jump)]
    assert [row[3] for row in rows] == parents


def test_two_pieces_of_one_id_are_one_cell():
    frames = moving()
    for labels in frames:
        labels[55:58, 70:75] = 1
    assert tracked(frames)[0] == [(1, 0, 4, 0), (2, 0, 4, 0)]


def test_large_ids():
    frames = [labels * 1_000_000 for labels in moving()]
    assert tracked(frames)[0] == [(1, 0, 4, 0), (2, 0, 4, 0)]


def test_frames_of_different_size_are_named():
    frames = [np.zeros((4, 5), np.int32), np.zeros((4, 6), np.int32)]
    with pytest.raises(InputError, match="Frame 3 is 4x5 pixels, but frame 4 is 4x6"):
        follow(zip((3, 4), frames, strict=True))


def test_frames_out_of_order_and_fractions_are_refused():
    with pytest.raises(InputError, match="Frame 2 comes after frame 2"):
        follow([(2, np.zeros((4, 5), np.int32))] * 2)
    with pytest.raises(
        InputError, match=r"Frame 0: labels must be whole numbers \(H, W\), got float64 of shape \(4, 5\)"
    ):
        follow([(0, np.zeros((4, 5)))])


def test_inputs_are_left_alone():
    frames = moving()
    frames[2][frames[2] == 2] = 0
    copies = [labels.copy() for labels in frames]
    tracked(frames)
    np.testing.assert_array_equal(frames, copies)


def test_cells_are_numbered_by_their_first_pixel():
    labels = np.array([[0, 7, 7], [3, 0, 7], [3, 3, 0]], np.int32)
    cells = find_cells(labels, 4)
    assert cells.ids.tolist() == [7, 3] and cells.areas.tolist() == [3, 3] and cells.frame == 4
    np.testing.assert_allclose(cells.centres, [[1 / 3, 5 / 3], [5 / 3, 1 / 3]])
    assert usual_diameter(cells) == pytest.approx(2 * np.sqrt(3 / np.pi))
    assert usual_diameter(find_cells(np.zeros((2, 2), np.int32))) == 1


def test_local_motion_is_that_of_the_neighbours():
    sources = np.array([[0.0, 0], [0, 1], [0, 2], [90, 0], [90, 1], [90, 2]])
    shifts = np.array([[1.0, 0]] * 3 + [[0, -4.0]] * 3)
    shifts[1] = 50  # one wrong link does not count
    moved = local_motion(np.array([[1.0, 1], [91, 1]]), sources, shifts, neighbours=3)
    assert moved.tolist() == [[1, 0], [0, -4]]
    assert local_motion(np.array([[1.0, 1]]), sources[:2], shifts[:2]).tolist() == [[0, 0]]


@pytest.mark.parametrize("shift, found", [((6, -4), (6, -4)), ((0, 0), (0, 0)), ((19, 0), (0, 0))])
def test_common_shift(shift, found):
    before = np.zeros((60, 60), bool)
    before[20:30, 20:24] = before[35:40, 33:41] = True
    after = np.roll(before, shift, axis=(0, 1))
    assert common_shift(before, after, reach=10).tolist() == list(found)
    assert common_shift(before, np.zeros_like(after), reach=10).tolist() == [0, 0]


def test_the_gain_of_a_link_by_hand():
    before, after = np.zeros((9, 9), np.int32), np.zeros((9, 9), np.int32)
    before[2:4, 2:4], after[2:4, 3:7] = 1, 1
    costs = Costs(overlap=1, distance=0.5, size=0.25, link=3)
    links = possible_links(move(find_cells(before), np.zeros((1, 2))), find_cells(after), 4.0, costs)
    # 2 shared pixels, 4 + 8 - 2 = 10 in the union; centres 2 columns apart = half a diameter; twice as large.
    assert links.shared.tolist() == [2]
    assert links.gains[0] == pytest.approx(3 - (1 - 0.2) - 0.5 * 0.5 - 0.25 * np.log(2))


@pytest.mark.parametrize("youth, rounding", [(0, 0), (0.5, 0), (0.25, 0.75)])
def test_the_gain_of_a_division_by_hand(youth, rounding):
    before, after = np.zeros((9, 12), np.int32), np.zeros((9, 12), np.int32)
    before[2:6, 3:9] = 1
    after[2:6, 2:5], after[2:5, 8:10] = 1, 2
    costs = Costs(link=3, division=0.5, certainty=0.1, growth=0, youth=2, rounding=4, overlap=1, distance=0, size=0)
    past = {"youth": np.array([youth]), "rounding": np.array([rounding])}
    sources, targets = move(find_cells(before), np.zeros((1, 2)), **past), find_cells(after)
    links = possible_links(sources, targets, 6.0, costs)
    # 24 pixels become 12 + 6. The first daughter has 8 pixels on the parent, the second 3 of its 6.
    assert links.shared.tolist() == [8, 3]
    # Columns: (12 * 3 + 6 * 8.5) / 18 = 29 / 6, the parent's 5.5; rows: (12 * 3.5 + 6 * 3) / 18 = 10 / 3, its 3.5.
    distance = np.hypot(10 / 3 - 3.5, 29 / 6 - 5.5) / 6
    odds = 1.5 - 1.8 * np.log(24 / 18) - 4.2 * np.log(2) - 3.5 * distance + 5.2 * 3 / 6 + 4 * rounding - 2 * youth
    divisions = possible_divisions(sources, targets, links, 6.0, costs)
    assert (divisions.parents.tolist(), divisions.firsts.tolist(), divisions.seconds.tolist()) == ([0], [0], [1])
    assert divisions.odds[0] == pytest.approx(odds)
    assert divisions.gains[0] == pytest.approx(3 - 0.5 + 0.1 * odds)


def test_roundness_by_hand():
    labels = np.zeros((40, 40), np.int32)
    labels[disk((10, 10), 7)], labels[20, 5:12], labels[30:33, 20:35], labels[2, 30] = 4, 2, 9, 7
    # A rectangle of pixels has the second moments of the ellipse whose axes are to each other as its sides.
    assert dict(zip(find_cells(labels).ids.tolist(), find_cells(labels).roundness, strict=True)) == pytest.approx(
        {4: 1, 2: 1 / 7, 9: 3 / 15, 7: 1}
    )
    slanted = np.zeros((90, 90), np.int32)
    rows, columns = np.mgrid[:90, :90]
    slanted[(np.abs(rows - columns) < 10) & (np.abs(rows + columns - 89) < 40)] = 1
    assert find_cells(slanted).roundness == pytest.approx([1 / 4], abs=0.01)


def test_the_past_of_a_cell_by_hand():
    long, square = np.zeros((2, 9, 9), np.int32)
    long[2:4, 1:9], square[2:6, 2:6] = 1, 1
    first, past = find_cells(long), Past.new(find_cells(long))
    # 2 x 8 pixels have roundness 2 / 8; never seen before, it is as round as ever, and not known to be young.
    assert (past.rounding(first).tolist(), past.youth(7, 5.0).tolist()) == ([0], [0])
    now, after = Past.new(find_cells(square)), Past.new(find_cells(long))
    now.go_on(0, past, 0)
    # Over its life log(1/4) and log 1 = 0, on average half of log(1/4).
    assert now.rounding(find_cells(square)) == pytest.approx([0.5 * np.log(4)])
    after.go_on(0, now, 0)
    assert (after.rounding(first).tolist(), after.num_seen.tolist()) == ([0], [3])
    # Born in frame 4 with odds 3 to 1; in frame 6 of 5 that it takes to be ripe, 3/5 of its youth is left.
    after.begin(0, 4, np.log(3))
    assert after.youth(6, 5.0) == pytest.approx([0.75 * 0.6])
    assert after.youth(9, 5.0).tolist() == [0]


def test_rounding_up_is_told_to_the_odds_of_a_division(monkeypatch):
    told = []

    def listening(sources, *others):
        told.append(sources.rounding.tolist())
        return possible_divisions(sources, *others)

    monkeypatch.setattr("cellseg.tracking.linking.possible_divisions", listening)
    frames = np.zeros((5, *SHAPE), np.int32)
    for number, labels in enumerate(frames):
        # 4 x 16 pixels become 8 x 8; the second cell is not seen in frame 2.
        labels[np.s_[10:14, 10:26] if number < 3 else np.s_[8:16, 14:22]] = 1
        if number != 2:
            labels[np.s_[40:44, 50:66] if number < 3 else np.s_[38:46, 54:62]] = 2
    rows, _ = tracked(frames)
    assert len(rows) == 2
    # In frame 3: long in three frames of the four in which it was seen, and in two of three.
    assert told[-1] == pytest.approx([3 / 4 * np.log(4), 2 / 3 * np.log(4)])


def test_a_cell_that_was_not_seen_does_not_divide():
    frames = dividing()
    frames[2] = np.where(frames[2] == 1, 0, frames[2])
    rows, _ = tracked(frames, Options(fill_gaps=False))
    assert sorted(row[3] for row in rows) == [0, 0, 0, 2]


def test_the_best_hypotheses_together_are_chosen():
    # Cell 0 -> 0 alone gains 3; but then 1 has nothing: 0 -> 1 and 1 -> 0 gain 2 + 2.
    links = Links(np.array([0, 0, 1]), np.array([0, 1, 0]), np.zeros(3), np.array([3.0, 2.0, 2.0]))
    assert assign(links, 2, 2).tolist() == [1, 2]
    # A division of 0 into both gains more than that; with less it does not.
    for gain, chosen, divided in ((4.5, [], [0]), (3.5, [1, 2], [])):
        division = Divisions(np.array([0]), np.array([0]), np.array([1]), np.zeros(1), np.array([gain]))
        taken, split = select(links, division, 2, 2)
        assert sorted(taken.tolist()) == chosen and split.tolist() == divided


def brute_force(links, divisions):
    """Largest sum of gains over all sets of hypotheses in which no cell stands twice."""
    options = [({("s", s), ("t", t)}, g) for s, t, g in zip(links.sources, links.targets, links.gains, strict=True)]
    options += [
        ({("s", p), ("t", a), ("t", b)}, g)
        for p, a, b, g in zip(divisions.parents, divisions.firsts, divisions.seconds, divisions.gains, strict=True)
    ]

    def best(left, used):
        if not left:
            return 0.0
        (cells, gain), *rest = left
        without = best(rest, used)
        return without if cells & used else max(without, gain + best(rest, used | cells))

    return best(options, frozenset())


def test_selection_is_exact():
    rng = np.random.default_rng(3)
    for _ in range(25):
        pairs = np.flatnonzero(rng.random(12) < 0.6)
        links = Links(pairs // 4, pairs % 4, np.zeros(len(pairs)), rng.random(len(pairs)) + 0.1)
        triples = [(p, a, b) for p in range(3) for a in range(4) for b in range(a) if rng.random() < 0.2]
        parents, firsts, seconds = np.array(triples, np.int64).reshape(-1, 3).T
        divisions = Divisions(parents, firsts, seconds, np.zeros(len(parents)), 1.5 * rng.random(len(parents)) + 0.1)
        taken, split = select(links, divisions, 3, 4)
        assert links.gains[taken].sum() + divisions.gains[split].sum() == pytest.approx(brute_force(links, divisions))


def test_the_doubling_time_is_that_of_the_divisions_seen():
    linker = _Linker(USUAL)
    for number, labels in enumerate(dividing()):
        linker.add(number, labels)
    # Two cells go from each of three frames to the next, three from each of two; one has divided, in frame 3.
    assert (linker.num_divisions, linker.cell_frames) == (1, 12)
    assert sorted(linker.past.born.tolist()) == [-np.inf, 3, 3]
    certain = linker.past.certainty[linker.past.born == 3]
    assert (certain > 0.5).all() and (certain < 1 - 1e-6).all()  # a clear division, but no more
    assert linker._doubling_time() < 1e-6
    linker.num_divisions = 6
    assert linker._doubling_time() == pytest.approx(np.log(2) * 12 / 6)
