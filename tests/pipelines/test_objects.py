import hashlib

import numpy as np
import pytest

from cellseg.streams import BatchStream
from pipelines.dataset import Batches, ShardReader, training_dataset
from pipelines.objects import ObjectBatches, find_objects
from pipelines.prepare import prepare
from pipelines.shares import Share
from tests.datasets import config, write_consep, write_shards

STEPS = [
    {"name": "elastic_grid", "sigma": 3.0},
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "RandomRotate90", "p": 1.0},
    {"name": "Affine", "scale": [0.8, 1.2], "rotate": [-20, 20], "p": 0.5},
    {"name": "RandomBrightnessContrast", "p": 0.5},
]


def scene():
    """Two cells of 4x4 px, one cut by the left border: 4x2 of it are left."""
    labels = np.zeros((12, 12), np.int32)
    labels[1:5, 4:8] = 7
    labels[6:10, 0:2] = 3
    return labels


def test_boxes_are_the_pixels_edges_and_labels_point_to_their_rows():
    found = find_objects(scene(), max_objects=4)
    assert found.boxes.dtype == np.float32 and found.labels.dtype == found.classes.dtype == np.int32
    np.testing.assert_array_equal(found.boxes, [[1, 4, 5, 8], [6, 0, 10, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(found.classes, [1, 1, 0, 0])
    np.testing.assert_array_equal(found.labels, np.select([scene() == 7, scene() == 3], [1, 2], 0))


def test_without_cells_all_rows_are_empty():
    found = find_objects(np.zeros((8, 8), np.int32), max_objects=3)
    assert not found.boxes.any() and not found.classes.any() and not found.labels.any() and found.left_out == 0


def test_a_cell_of_one_pixel_has_a_box_of_one_pixel():
    labels = np.zeros((8, 8), np.int32)
    labels[2, 5] = 9
    np.testing.assert_array_equal(find_objects(labels, max_objects=1, areas={9: 1}).boxes, [[2, 5, 3, 6]])


@pytest.mark.parametrize(("area", "kept"), [(16, True), (32, True), (33, False), (100, False)])
def test_a_cut_cell_is_kept_if_a_quarter_of_it_is_left(area, kept):
    found = find_objects(scene(), max_objects=4, areas={7: 16, 3: area})  # 8 px of the second are in the patch
    assert np.count_nonzero(found.classes) == 1 + kept
    assert set(np.unique(found.labels[6:10, 0:2])) == ({2} if kept else {-1})


def test_the_change_of_size_by_augmentation_is_read_off_whole_cells():
    # All is half as large as in the image: the whole cell has 16 of 64 px, the cut one 8 of 128, which are 32 by now.
    found = find_objects(scene(), max_objects=4, areas={7: 64, 3: 128})
    assert np.count_nonzero(found.classes) == 2
    assert np.count_nonzero(find_objects(scene(), max_objects=4, areas={7: 64, 3: 132}).classes) == 1


def test_pieces_of_one_cell_are_not_one_box():
    # A mirrored copy that the border cuts, and a speck beside the whole cell.
    labels = np.zeros((12, 12), np.int32)
    labels[2:6, 2:6] = labels[10:12, 2:6] = labels[8, 8] = 5
    found = find_objects(labels, max_objects=4, areas={5: 16})
    np.testing.assert_array_equal(found.boxes[:2], [[2, 2, 6, 6], [10, 2, 12, 6]])
    assert np.count_nonzero(found.classes) == 2 and found.labels[8, 8] == -1


def test_unannotated_pixels_and_unknown_classes_count_for_nothing():
    ignore = np.zeros((12, 12), bool)
    ignore[0, :] = True
    classes = np.where(scene() == 7, 2, 0)
    found = find_objects(scene(), classes, ignore, max_objects=4)
    np.testing.assert_array_equal(found.classes, [2, 0, 0, 0])
    assert (found.labels[0] == -1).all() and (found.labels[6:10, 0:2] == -1).all()


def test_of_too_many_cells_the_largest_stay_and_the_rest_are_counted():
    labels = np.zeros((10, 30), np.int32)
    for number in range(1, 6):
        labels[1 : 1 + number, 6 * number - 5] = number  # areas 1 to 5
    found = find_objects(labels, max_objects=2)
    assert found.left_out == 3 and found.classes.tolist() == [1, 1]
    assert sorted((found.boxes[:, 2] - found.boxes[:, 0]).tolist()) == [4, 5]
    np.testing.assert_array_equal(np.unique(found.labels), [-1, 0, 1, 2])


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return ShardReader(write_shards(tmp_path_factory.mktemp("data")))


def object_batches(reader, **options):
    return ObjectBatches(reader, **{"max_objects": 6, "patch": 32, "batch_size": 3, "augment": STEPS} | options)


def digest(batch):
    image, truth = batch
    arrays = [image, truth["boxes"], truth["classes"], truth["labels"]]
    return [hashlib.sha256(np.asarray(array).tobytes()).hexdigest() for array in arrays]


def test_tf_data_and_pydataset_give_the_same_batches_of_static_shape(reader):
    expected = [digest(object_batches(reader).batch(step)) for step in range(2, 8)]
    dataset = training_dataset(object_batches(reader), first_step=2, parallel_calls=2)
    assert [digest(batch) for batch in dataset.take(6)] == expected
    stream = BatchStream(object_batches(reader), first_step=2)
    assert [digest(stream[step]) for step in range(6)] == expected
    image, truth = dataset.element_spec
    shapes = {name: (tuple(spec.shape), spec.dtype.name) for name, spec in truth.items()}
    assert tuple(image.shape) == (3, 32, 32, 1)
    assert shapes == {"boxes": ((3, 6, 4), "float32"), "classes": ((3, 6), "int32"), "labels": ((3, 32, 32), "int32")}


def test_devices_share_the_rows_of_a_batch(reader):
    batches = object_batches(reader, batch_size=4)
    share = Share(batches, 1, of=2)
    image, truth = share.batch(5)
    whole_image, whole = batches.batch(5)
    np.testing.assert_array_equal(image, whole_image[1::2])
    for name, array in truth.items():
        np.testing.assert_array_equal(array, whole[name][1::2])
    image_spec, specs = share.specs
    assert image_spec.shape == (2, 32, 32, 1) and {name: spec.shape for name, spec in specs.items()} == {
        name: array.shape for name, array in truth.items()
    }


def test_crops_and_augmentation_are_those_of_the_pixel_targets(reader):
    image, truth = object_batches(reader).batch(4)
    plain, target, _ = Batches(reader, patch=32, batch_size=3, augment=STEPS).batch(4)
    np.testing.assert_array_equal(image, plain)
    assert ((truth["labels"] != 0) == (target[..., 0] > 0)).all()


def test_every_box_holds_the_pixels_of_its_label(reader):
    batches = object_batches(reader, augment=[])
    seen = 0
    for step in range(6):
        _, truth = batches.batch(step)
        for boxes, classes, labels in zip(truth["boxes"], truth["classes"], truth["labels"], strict=True):
            for row in np.flatnonzero(classes):
                rows, columns = np.nonzero(labels == row + 1)
                around = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
                np.testing.assert_array_equal(boxes[row], around)
                seen += 1
    assert seen > 10


def test_crowded_patches_are_counted(tmp_path):
    batches = object_batches(ShardReader(write_shards(tmp_path, 6)), max_objects=1, patch=64, augment=[])
    batches.batch(0)
    assert batches.crowded == 3 and batches.left_out == 3 * 3  # four discs in each of three images


def test_classes_of_the_data_are_told_apart(tmp_path):
    source = write_consep(tmp_path / "raw")
    prepare(source, tmp_path / "out", config=config(layout="consep", by="published"), options={})
    reader = ShardReader(tmp_path / "out")
    _, truth = object_batches(reader, patch=64, augment=[], with_classes=True).batch(0)
    np.testing.assert_array_equal(np.sort(truth["classes"], axis=1), [[0, 0, 1, 2, 3, 4]] * 3)
    _, truth = object_batches(reader, patch=64, augment=[]).batch(0)
    assert truth["classes"].max() == 1
