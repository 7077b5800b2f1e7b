"""Slow, obvious references for Mask R-CNN: loops over boxes and pixels, and operators of ONNX Runtime."""

import functools

import numpy as np


def iou(first, second):
    """IoU of two boxes, counted on a grid of quarter pixels: edges must be multiples of 0.25."""
    cells = []
    for box in (first, second):
        top, left, bottom, right = (round(4 * float(edge)) for edge in box)
        cells.append({(row, column) for row in range(top, bottom) for column in range(left, right)})
    return len(cells[0] & cells[1]) / max(len(cells[0] | cells[1]), 1)


def greedy(boxes, valid, threshold, overlap=iou):
    """Which boxes non-maximum suppression keeps, one after the other."""
    kept = []
    for place in range(len(boxes)):
        if valid[place] and all(overlap(boxes[place], boxes[other]) <= threshold for other in kept):
            kept.append(place)
    return [place in kept for place in range(len(boxes))]


def truth_of(images, *, rows, classes=None):
    """A batch of truth from label images: the box of each object, row i - 1 for label i."""
    truth = {
        "boxes": np.zeros((len(images), rows, 4), np.float32),
        "classes": np.zeros((len(images), rows), np.int32),
        "labels": np.stack(images).astype(np.int32),
    }
    for number, labels in enumerate(images):
        for label in range(1, labels.max() + 1):
            row, column = np.nonzero(labels == label)
            truth["boxes"][number, label - 1] = row.min(), column.min(), row.max() + 1, column.max() + 1
            truth["classes"][number, label - 1] = 1 if classes is None else classes[label - 1]
    return truth


def onnx_roi_align(features, boxes, *, size, stride, samples):
    """ONNX Runtime's RoiAlign of one image's features (h, w, C) at boxes (R, 4) -> (R, size, size, C)."""
    options = {"output_height": size, "output_width": size, "sampling_ratio": samples, "spatial_scale": 1 / stride}
    options |= {"coordinate_transformation_mode": "half_pixel", "mode": "avg"}
    session = _session("RoiAlign", ("X", "rois", "batch"), tuple(options.items()))
    given = {
        "X": np.ascontiguousarray(features.transpose(2, 0, 1)[None], np.float32),
        "rois": np.ascontiguousarray(boxes[:, [1, 0, 3, 2]], np.float32),
        "batch": np.zeros(len(boxes), np.int64),
    }
    return session.run(None, given)[0].transpose(0, 2, 3, 1)


def onnx_suppression(boxes, scores, *, threshold):
    """Places of the boxes (N, 4) that ONNX Runtime's NonMaxSuppression keeps, best first."""
    session = _session("NonMaxSuppression", ("boxes", "scores", "most", "iou"), ())
    given = {
        "boxes": boxes[None].astype(np.float32),
        "scores": scores[None, None].astype(np.float32),
        "most": np.asarray([len(boxes)], np.int64),
        "iou": np.asarray([threshold], np.float32),
    }
    return session.run(None, given)[0][:, 2]


@functools.cache
def _session(operator, inputs, options):
    """An ONNX Runtime session of one operator."""
    import onnxruntime
    from onnx import TensorProto, helper

    whole = {"batch", "most"}
    node = helper.make_node(operator, list(inputs), ["answer"], **dict(options))
    kinds = [TensorProto.INT64 if name in whole else TensorProto.FLOAT for name in inputs]
    answer = TensorProto.INT64 if operator == "NonMaxSuppression" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(inputs, kinds, strict=True)],
        [helper.make_tensor_value_info("answer", answer, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
