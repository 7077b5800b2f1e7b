import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from pipelines.errors import InputError

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NUCLEI = EXPERIMENTS / "data" / "nuclei"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("select_nuclei", EXPERIMENTS / "select_nuclei.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_source(folder, *, ids):
    """Ids with two nuclei each: 3x4 pixels from mask a, 2x5 from mask b, which share one pixel; `stained` is bright."""
    for number, name in enumerate(ids):
        image = np.full((20, 30, 3), 200 if name.startswith("stained") else 5, np.uint8)
        image[..., 0] += 20 if name.startswith("stained") else 0
        image[2:5, 2:6] = 100 + number
        first, second = np.zeros((2, 20, 30), np.uint8)
        first[2:5, 2:6] = second[4:6, 5:10] = 255
        for part, picture in (("images", {name: image}), ("masks", {"a": first, "b": second})):
            (folder / name / part).mkdir(parents=True)
            for stem, pixels in picture.items():
                assert cv2.imwrite(str(folder / name / part / f"{stem}.png"), pixels)
    return folder


def test_every_second_fluorescence_id_in_order(tmp_path, script, capsys):
    ids = ["d" * 20, "a" * 20, "stained1", "c" * 20, "b" * 20, "e" * 20]
    source = make_source(tmp_path / "stage1_train", ids=ids)
    script.main([str(source), str(tmp_path / "out"), "--every", "2"])
    for part in ("images", "labels"):
        assert sorted(p.name for p in (tmp_path / "out" / part).iterdir()) == [f"{c * 12}.tif" for c in "ace"]
    image = tifffile.imread(tmp_path / "out/images/cccccccccccc.tif")
    labels = tifffile.imread(tmp_path / "out/labels/cccccccccccc.tif")
    assert (image.dtype, labels.dtype, image.shape, labels.shape) == (np.uint8, np.uint16, (20, 30), (20, 30))
    assert image[3, 3] == 103  # the fourth id made
    # 3 * 4 = 12 pixels; 2 * 5 = 10, of which pixel (4, 5) belongs to the first mask.
    assert [int((labels == number).sum()) for number in (1, 2, 3)] == [12, 9, 0]
    assert labels[4, 5] == 1
    # 3 images * 21 of 600 pixels.
    assert "3 images (3 of 20x30 pixels), 6 nuclei, 3.5 % foreground" in capsys.readouterr().out


def test_files_are_deflated(tmp_path, script):
    script.select(make_source(tmp_path / "s", ids=["a" * 20]), tmp_path / "out", every=1)
    for part in ("images", "labels"):
        with tifffile.TiffFile(next((tmp_path / "out" / part).iterdir())) as file:
            assert file.pages[0].compression.name == "ADOBE_DEFLATE"


def test_licence_beside_the_folders_is_kept(tmp_path, script):
    (tmp_path / "LICENSE.md").write_text("CC0")
    script.select(make_source(tmp_path / "s", ids=["a" * 20]), tmp_path, every=1)
    assert (tmp_path / "LICENSE.md").read_text() == "CC0"


def test_short_names_that_collide_are_refused(tmp_path, script):
    source = make_source(tmp_path / "s", ids=["a" * 12 + "1", "a" * 12 + "2"])
    with pytest.raises(InputError, match="share their first 12 digits"):
        script.select(source, tmp_path / "out", every=1)
    assert not (tmp_path / "out").exists()


def test_candidates_are_chosen_before_counting(tmp_path, script):
    source = make_source(tmp_path / "s", ids=[c * 20 for c in "abcde"])
    chosen = script.select(source, tmp_path / "out", every=2, among=["b" * 12, "c" * 12, "e" * 12])
    assert [sample.name for sample in chosen] == ["b" * 12, "e" * 12]
    with pytest.raises(InputError, match="None of the 1 candidates"):
        script.select(source, tmp_path / "other", every=2, among=["f"])


def test_every_nothing_is_refused(tmp_path, script):
    with pytest.raises(InputError, match="--every is 0"):
        script.select(tmp_path, tmp_path / "out", every=0)


def test_existing_selection_is_not_replaced(tmp_path, script, capsys):
    source = make_source(tmp_path / "s", ids=["a" * 20])
    script.select(source, tmp_path / "out", every=1)
    with pytest.raises(SystemExit) as stop:
        script.main([str(source), str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "exists already" in capsys.readouterr().err


def test_shipped_selection_is_what_its_licence_says():
    text = (NUCLEI / "LICENSE.md").read_text()
    images, labels = (sorted((NUCLEI / part).glob("*.tif")) for part in ("images", "labels"))
    assert [path.name for path in images] == [path.name for path in labels]
    assert f"{len(images)} fluorescence images" in text
    assert {path.stem for path in images} <= set((NUCLEI / "candidates.txt").read_text().split())
    read = [tifffile.imread(path) for path in labels]
    assert [tifffile.imread(path).shape for path in images] == [one.shape for one in read]
    assert all(len(np.unique(one)) - 1 == one.max() for one in read)  # 1..n without gaps
    assert f"{sum(int(one.max()) for one in read):,} nuclei" in text
    assert f"{sum((one > 0).sum() for one in read) / sum(one.size for one in read):.1%}".replace("%", " %") in text
    size = sum(path.stat().st_size for path in images + labels)
    assert f"{size:,} bytes" in text
    assert size <= 6e6
    assert "CC0" in text and "BBBC038v1" in text
