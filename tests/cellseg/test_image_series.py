import numpy as np
import pytest
import tifffile

from cellseg.image_series import find_images
from pipelines.errors import InputError
from pipelines.images import write_image


def frame(number, shape=(6, 8)):
    return np.full(shape, number, np.uint8)


def folder_of(tmp_path, numbers, name="t{:03d}.tif"):
    for number in numbers:
        write_image(tmp_path / "seq" / name.format(number), frame(number))
    return tmp_path / "seq"


def test_a_folder_by_the_numbers_of_its_files(tmp_path):
    folder = folder_of(tmp_path, [10, 2, 7])
    for given in (folder, [folder], sorted(folder.iterdir())):
        images = find_images(given)
        assert (images.name, list(images.places), len(images)) == ("seq", [2, 7, 10], 3)
        assert [int(images.read(number)[0, 0, 0]) for number in images.places] == [2, 7, 10]
        assert images.where(7) == str(folder / "t007.tif")
        assert images.missing() == [range(3, 7), range(8, 10)]
        assert images.shape == (6, 8)


def test_a_stack_by_its_pages(tmp_path):
    path = tmp_path / "in" / "movie.tif"
    path.parent.mkdir()
    tags = {"axes": "TYX", "finterval": 30.0, "unit": "um"}
    tifffile.imwrite(path, np.stack([frame(n) for n in range(4)]), imagej=True, resolution=(2, 4), metadata=tags)
    for given in (path, path.parent):
        images = find_images(given)
        assert (images.name, list(images.places)) == ("movie", [0, 1, 2, 3])
        assert int(images.read(3)[0, 0, 0]) == 3
        assert images.where(3) == f"{path}, page 3"
        assert images.interval_s == 30 and images.spacing_um == pytest.approx((0.25, 0.5))


def test_what_is_no_series(tmp_path):
    folder = folder_of(tmp_path, [1, 2])
    with pytest.raises(InputError, match="seq are 2 inputs. One sequence or volume was expected"):
        find_images([folder, folder])
    tifffile.imwrite(folder / "t003.tif", np.stack([frame(3)] * 2), photometric="minisblack")
    with pytest.raises(InputError, match=r"t003.tif holds 2 pages, and there are 3 files"):
        find_images(folder)
    (folder / "t003.tif").unlink()
    write_image(folder / "other.tif", frame(0))
    with pytest.raises(InputError, match="are no series: the names other and t001 differ in more than one number"):
        find_images(folder)
    with pytest.raises(FileNotFoundError, match="no file or folder .*nowhere"):
        find_images(tmp_path / "nowhere")


def test_two_images_of_one_number(tmp_path):
    folder = folder_of(tmp_path, [1, 2])
    write_image(folder / "t001.png", frame(1))
    with pytest.raises(InputError, match=r"t001.png and .*t001.tif are both frame 1. Keep one of them"):
        find_images(folder)
    (folder / "t001.png").unlink()
    write_image(tmp_path / "other" / "t002.tif", frame(2))
    with pytest.raises(InputError, match=r"other.t002.tif and .*seq.t002.tif are both frame 2"):
        find_images([*folder.iterdir(), tmp_path / "other" / "t002.tif"])


def test_numbers_far_apart_are_not_listed(tmp_path):
    folder = folder_of(tmp_path, [0])
    write_image(folder / "t2147483647.tif", frame(1))
    images = find_images(folder)
    assert images.missing() == [range(1, 2**31 - 1)]


def test_sizes_are_compared_before_pixels_are_read(tmp_path):
    folder = folder_of(tmp_path, [0, 1, 2])
    (folder / "t000.tif").write_bytes(b"damaged")  # fails when it is read
    find_images(folder).check_sizes()
    write_image(folder / "t002.tif", frame(2, (6, 9)))
    with pytest.raises(InputError, match=r"t001.tif is 6x8 pixels, but .*t002.tif is 6x9. All images of a sequence"):
        find_images(folder).check_sizes()


def test_images_of_frames_by_number_or_in_order(tmp_path):
    images = find_images(folder_of(tmp_path, [3, 4, 5]))
    where = {number: f"mask{number}" for number in range(9)}
    assert list(images.matched([3, 5], where).places) == [3, 5]
    shifted = images.matched([0, 1, 2], where)
    assert [int(shifted.read(number)[0, 0, 0]) for number in range(3)] == [3, 4, 5]
    with pytest.raises(InputError, match=r"no image for 1 of 2 frames of labels, for example frame 8 \(mask8\)"):
        images.matched([3, 8], where)
