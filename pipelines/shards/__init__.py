"""Shards: files that hold many samples each, as raw bytes at known places. One module a format.

A record is a dict of arrays of one sample: `image` (H, W, C) in the file's dtype, `labels` (H, W) in the smallest
unsigned dtype that holds its ids, `contrast` float32 (2,), `centres` int32 (n, 2), and where there are any `classes`,
`weight_map`, `ignore`. The writers say where each array lies; `pipelines.shards.arrays` reads it there. What is in
which shard stands in `pipelines.shards.manifest`.
"""

from pipelines.shards import npz, tfrecord

FORMATS = {"npz": npz, "tfrecord": tfrecord}
