import cv2
import numpy as np

from pipelines.dataset import Batches, ShardReader
from pipelines.patch_sheet import patch_sheet
from pipelines.weight_maps import border
from tests.datasets import write_shards


def test_a_row_for_each_patch(tmp_path, sharp_previews):
    reader = ShardReader(write_shards(tmp_path, 6))
    batches = Batches(reader, patch=84, output=64, batch_size=1, weight_map=border, target="foreground_border")
    heights = []
    for rows in (1, 3):
        patch_sheet([batches.example(place) for place in range(rows)], tmp_path / "sheet.png")
        picture = cv2.imread(str(tmp_path / "sheet.png"))
        heights.append(picture.shape[0])
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert 2.5 < heights[1] / heights[0] < 3.1
