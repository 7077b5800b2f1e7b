import numpy as np
import pytest
import tifffile

from cellseg.meshes import object_meshes
from cellseg.reconstruction import clean, join, link, measure_objects, renumbered, write_volume
from pipelines.errors import InputError
from pipelines.images import read_labels


def fork():
    """A stem of 2 sections that parts into two branches in the third."""
    volume = np.zeros((3, 4, 9), np.int32)
    volume[:2, 1:3, 2:7] = 1
    volume[2, 1:3, 2:4] = 1
    volume[2, 1:3, 5:7] = 2
    return volume


def touching():
    """Two cells that touch in the middle section alone; each section numbers its cells anew."""
    volume = np.zeros((3, 4, 9), np.int32)
    volume[0, 1:3, 1:4], volume[0, 1:3, 5:8] = 1, 2
    volume[1, 1:3, 1:4], volume[1, 1:3, 4:8] = 2, 1
    volume[2, 1:3, 1:4], volume[2, 1:3, 5:8] = 5, 9
    return volume


def test_join_makes_one_object_of_what_touches():
    assert join(fork()).max() == 1
    assert join(touching()).max() == 1
    assert join(fork() * 255).dtype == np.int32


def test_link_keeps_the_cuts_of_the_sections():
    expected = np.where(np.arange(9) < 4, 1, 2) * (touching() > 0)
    np.testing.assert_array_equal(link(touching()), expected)


def test_link_gives_one_partner_at_most():
    # Of the branches, 4 pixels each, the first goes on; the other is an object of its own.
    objects = link(fork())
    assert objects.max() == 2
    assert set(np.unique(objects[:2])) == {0, 1}
    assert sorted(np.unique(objects[2])) == [0, 1, 2]


def test_link_chooses_the_most_shared_pixels_over_all():
    # Best alone: the 1 of the first section with the 2 of the second, 4 pixels; but then its 2 has no partner.
    first = np.array([[1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 0]])
    second = np.array([[1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0]])
    objects = link([first, second])
    np.testing.assert_array_equal(objects[0], first)
    np.testing.assert_array_equal(objects[1], second)


def test_link_needs_enough_overlap():
    first, second = np.array([[1, 1, 1, 1, 0, 0, 0]]), np.array([[0, 0, 0, 1, 1, 1, 1]])
    assert link([first, second]).max() == 2
    assert link([first, second], min_overlap=0.25).max() == 1


def test_an_empty_section_ends_all_objects():
    cell = np.ones((2, 2), np.int32)
    assert link([cell, 0 * cell, cell]).max() == 2
    assert join([cell, 0 * cell, cell]).max() == 2
    assert link([0 * cell, 0 * cell]).max() == 0


@pytest.mark.parametrize("seed", range(3))
def test_link_does_not_depend_on_the_numbers_of_the_cells(seed):
    rng = np.random.default_rng(seed)
    # Lines of different widths: no two overlaps are equal, so there is one best choice.
    places = np.repeat(np.arange(4), [5, 7, 11, 13]), np.repeat(np.arange(5), [3, 8, 12, 17, 19])
    sections = [rng.integers(0, 6, (4, 5))[np.ix_(*places)] for _ in range(4)]
    renamed = [np.append(0, rng.permutation(60)[:9] + 1)[section] for section in sections]
    one, other = link(sections), link(renamed)
    assert len(np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T) == one.max() + 1 == other.max() + 1


def test_connectivity_of_corners():
    volume = np.zeros((2, 2, 2), bool)
    volume[0, 0, 0] = volume[1, 1, 1] = True
    assert join(volume).max() == 2
    assert join(volume, connectivity=26).max() == 1


def test_small_objects_go_and_the_others_are_numbered_anew():
    labels = np.zeros((1, 2, 9), np.int32)
    labels[0, 0, :3], labels[0, 0, 4:9], labels[0, 1, 0] = 4, 7, 9
    cleaned = clean(labels, min_voxels=3)
    assert np.bincount(cleaned.ravel()).tolist() == [10, 3, 5]
    # A voxel of 0.1 * 0.1 * 0.2 = 0.002 um3: three of them are 0.006.
    assert clean(labels, min_um3=0.006, spacing_um=(0.2, 0.1, 0.1)).max() == 2
    assert clean(labels, min_um3=0.0061, spacing_um=(0.2, 0.1, 0.1)).max() == 1
    assert clean(labels).max() == 3


def test_holes_are_filled_but_tunnels_and_other_objects_stay():
    labels = np.zeros((5, 5, 12), np.int32)
    labels[1:4, 1:4, 1:4] = 1
    labels[2, 2, 2] = 0
    labels[:, 1:4, 5:8] = 2
    labels[:, 2, 6] = 0  # open at both ends
    labels[1:4, 1:4, 9:12] = 3
    labels[2, 2, 10] = 4
    filled = clean(labels, fill_holes=True)
    assert np.bincount(filled.ravel())[1:].tolist() == [27, 40, 26, 1]
    assert labels[2, 2, 2] == 0


def test_renumbered():
    assert renumbered(np.array([[5, 0, 2, 5]])).tolist() == [[2, 0, 1, 2]]
    assert renumbered(np.zeros((1, 1, 1), np.int32)).tolist() == [[[0]]]


def test_objects_by_hand():
    labels = np.zeros((6, 8, 9), np.int32)
    labels[1:4, 2:6, 3:8] = 1  # 3 x 4 x 5 voxels
    labels[5, 7, 8] = 2
    table = measure_objects(labels, spacing_um=(3.0, 0.5, 2.0))
    box = table.iloc[0]
    assert (box["object"], box["num_voxels"], box["volume_um3"]) == (1, 60, 180)
    assert (box["z"], box["row"], box["column"]) == (2, 3.5, 5)
    assert (box["z_um"], box["row_um"], box["column_um"]) == (6, 1.75, 10)
    assert [box[name] for name in ("first_section", "last_section")] == [1, 3]
    assert [box[name] for name in ("row_min", "row_max", "column_min", "column_max")] == [2, 5, 3, 7]
    assert box["equivalent_diameter_um"] == pytest.approx(np.cbrt(6 * 180 / np.pi))
    assert box["sphericity"] == pytest.approx(np.cbrt(np.pi) * (6 * 180) ** (2 / 3) / box["surface_um2"])
    assert table["touches_border"].tolist() == [False, True]
    assert "surface" not in table


def test_objects_without_a_voxel_size():
    labels = np.zeros((5, 5, 5), np.int32)
    labels[1:4, 1:4, 1:4] = 3
    table = measure_objects(labels)
    assert table["object"].tolist() == [3]
    assert table["surface"][0] == pytest.approx(object_meshes(labels)[3].area)
    assert "volume_um3" not in table


def test_without_objects_there_are_columns_and_no_lines():
    labels = np.zeros((2, 3, 4), np.int32)
    nothing = measure_objects(labels, spacing_um=(1, 1, 1))
    labels[0, 0, 0] = 1
    something = measure_objects(labels, spacing_um=(1, 1, 1))
    assert len(nothing) == 0
    assert nothing.dtypes.to_dict() == something.dtypes.to_dict()


def test_a_volume_file_is_a_z_stack_with_its_voxel_size(tmp_path):
    path = tmp_path / "volume.tif"
    write_volume(path, fork(), spacing_um=(0.05, 0.01, 0.02))
    np.testing.assert_array_equal(read_labels(path), fork())
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZYX"
        told = file.imagej_metadata
        assert (told["slices"], told["spacing"], told["unit"]) == (3, 0.05, "um")
        across, down = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (across[0] / across[1], down[0] / down[1]) == (50, 100)
    write_volume(path, fork())
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "ZYX"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: join([]), "There is no section"),
        (lambda: link([]), "There is no section"),
        (lambda: join([np.ones((2, 3)), np.ones((3, 2))]), r"must be \(H, W\) of one size, got \[\(2, 3\), \(3, 2\)\]"),
        (lambda: link([np.ones((2, 3), int), np.ones((3, 2), int)]), r"must be of one size, got \(2, 3\) and \(3, 2\)"),
        (lambda: join(fork(), connectivity=18), "connectivity must be 6 or 26, got 18"),
        (lambda: link(fork(), min_overlap=0), "min_overlap must be above 0 and at most 1, got 0"),
        (lambda: clean(fork(), min_um3=2), "min_um3 is 2, but the size of a voxel is not known"),
        (lambda: measure_objects(fork(), spacing_um=(1, 1)), r"spacing_um is \(1.0, 1.0\); \(z, row, column\) in micr"),
    ],
)
def test_what_cannot_be_built_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
