"""Trust: what comes from somebody else runs no code, leaves its folder nowhere, and takes no more than it holds."""

import ast
import io
import json
import os
import pickle
import re
import struct
import sys
import zipfile

import keras
import numpy as np
import pytest
import tifffile
from keras import layers

from cellseg import experiment as experiments
from cellseg import runs, yaml_text
from cellseg.checkpoints import Checkpoint
from cellseg.label_series import find_series
from cellseg.models.mask_rcnn import published
from pipelines import images, outline_files
from pipelines.errors import InputError
from pipelines.outline_files import read_geojson, read_rois
from pipelines.rasters import open_raster
from pipelines.shards.manifest import Manifest
from pipelines.shards.reader import ShardReader
from tests.datasets import write_shards
from tests.odd_pages import binary_only, ome
from tests.runs import bright_pixels_run, identity
from tests.test_architecture import ROOT, files


class Touching:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def trap(tmp_path):
    """A path that nothing may have made at the end."""
    path = tmp_path / "run by somebody else"
    yield path
    assert not path.exists()


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Touching(tmp_path / "sprung"))).close()
    assert (tmp_path / "sprung").exists()


# Nothing is run


WATCHED = ("load", "load_model", "eval", "query", "exec", "unsafe_load", "full_load", "system", "popen", "read_pickle")
WATCHED += ("extract", "extractall", "unpack_archive", "enable_unsafe_deserialization", "genfromtxt")


def calls(tree):
    """(dotted name, call) of every call in a module that is worth a look."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if last in WATCHED or any(keyword.arg == "shell" for keyword in node.keywords):
                yield ast.unparse(node.func), node


def unsafe(name, call):
    """Whether a call could run what stands in a file."""
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    last = name.rpartition(".")[2]
    if name in ("np.load", "numpy.load"):
        return options.get("allow_pickle") != "False"
    if last == "load_model" and name.startswith("keras"):
        return options.get("safe_mode") != "True"
    if last in ("eval", "query"):  # of pandas; scipy's trees are asked for points
        return name == "eval" or any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in call.args)
    return name == "yaml.load" or last in WATCHED[4:] or options.get("shell") == "True"


def test_no_room_can_run_what_stands_in_a_file():
    found = []
    for path in files():
        tree = ast.parse(path.read_text())
        found += [f"{path.relative_to(ROOT)}: {name}" for name, call in calls(tree) if unsafe(name, call)]
        modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        found += [f"{path}: {one}" for one in modules if one.split(".")[0] in ("pickle", "shelve", "marshal", "joblib")]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "keras.saving.load_model(path)",
        "frame.eval('a + b')",
        "frame.query('a > 1')",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_such_a_call_would_be_seen(line):
    assert any(unsafe(name, call) for name, call in calls(ast.parse(line)))


def with_config(folder, config):
    """A run whose model file has another `config.json`."""
    run = bright_pixels_run(folder)
    model = run / runs.MODEL
    with zipfile.ZipFile(model) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(model, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, json.dumps(config(json.loads(content))) if name == "config.json" else content)
    return model


def test_a_model_with_a_lambda_layer_in_it_is_refused(tmp_path):
    run = bright_pixels_run(tmp_path)
    inputs = layers.Input((None, None, 1))
    code = layers.Lambda(lambda image: image, output_shape=lambda shape: shape)
    hidden = keras.Sequential([layers.Input((None, None, 1)), code, layers.Conv2D(1, 1)])
    keras.Model(inputs, layers.Identity(name="probability")(hidden(inputs))).save(run / runs.MODEL)
    with pytest.raises(
        InputError, match=r"model\.keras carries Python code of whoever made it \(a Lambda layer"
    ) as told:
        runs.load_model(run / runs.MODEL)
    assert "safe_mode" not in str(told.value) and "unsafe" not in str(told.value)  # no advice to run it all the same


@pytest.mark.parametrize(
    "planted",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"},
        {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
        {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "TRAP"]}},
        {
            "module": "keras.utils",
            "class_name": "get_file",
            "config": {"origin": "file:///etc/passwd", "fname": "TRAP"},
        },
        {
            "module": "keras.layers",
            "class_name": "Lambda",
            "config": {"name": "x", "function": {"class_name": "__lambda__"}},
        },
    ],
)
@pytest.mark.parametrize("where", ["model", "layer"])
def test_a_model_whose_description_was_changed_runs_nothing(tmp_path, trap, planted, where):
    planted = json.loads(json.dumps(planted).replace("TRAP", str(trap)))

    def changed(config):
        if where == "model":
            return planted
        config["config"]["layers"][-1] |= planted
        return config

    with pytest.raises(InputError, match=r"model\.keras (cannot be loaded|carries Python code)"):
        runs.load_model(with_config(tmp_path, changed))


def test_a_model_that_is_a_pickle_runs_nothing(tmp_path, trap):
    (tmp_path / "model.keras").write_bytes(pickle.dumps(Touching(trap)))
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded: .* Copy the run again from where it came"):
        runs.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch TRAP']",
        "!!python/object/new:os.system ['touch TRAP']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object/apply:builtins.open ['TRAP', w]",
    ],
)
def test_an_experiment_runs_nothing(tmp_path, trap, value):
    path = tmp_path / "experiment.yaml"
    path.write_text(f"name: a\ndata: {{source: x, layout: pairs}}\nseed: {value.replace('TRAP', str(trap))}\n")
    with pytest.raises(InputError, match=r"experiment\.yaml is not valid YAML: .*could not determine a constructor"):
        experiments.read(path)
    with pytest.raises(InputError, match="the value is not valid YAML"):
        experiments.apply_overrides({}, [f"seed={value}"])


def pickled(trap):
    return np.array([Touching(trap)], object)


def test_arrays_of_objects_are_refused(tmp_path, trap):
    np.save(tmp_path / "labels.npy", pickled(trap), allow_pickle=True)
    with pytest.raises(InputError, match=r"labels\.npy is no array of numpy: .*Python objects"):
        find_series(tmp_path / "labels.npy")
    np.savez(tmp_path / "checkpoint.npz", about=pickled(trap))
    with pytest.raises(InputError, match=r"checkpoint\.npz is damaged"):
        Checkpoint.read(tmp_path / "checkpoint.npz")
    np.savez(tmp_path / "weights.npz", kernel=pickled(trap))
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as stored, pytest.raises(ValueError, match="pickle"):
        stored["kernel"]
    assert published.__file__  # which reads its weights so; `test_no_room_can_run_what_stands_in_a_file` looks


# Shards and manifests


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), 5, side=32, cells=1)


@pytest.fixture
def changed(shards, tmp_path):
    """change(content) -> folder of a manifest that was changed."""

    def change(function):
        content = json.loads((shards / "manifest.json").read_text())
        function(content)
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        for path in shards.glob("*.npz"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    return change


@pytest.mark.parametrize("name", ["../train-00000.npz", "/etc/passwd", "a/../../b.npz", "..", ""])
def test_a_manifest_names_no_file_outside_its_folder(changed, name):
    folder = changed(lambda content: content["shards"][0].update(file=name))
    with pytest.raises(InputError, match="which lies outside its folder"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("shard", -1),
        ("shard", 10**6),
        ("shard", "0"),
        ("shape", [10**6, 10**6, 1]),
        ("shape", [32, 32]),
        ("split", "all"),
        ("contrast", [float("nan"), 1]),
        ("name", None),
        ("arrays", {}),
    ],
)
def test_a_manifest_whose_entries_cannot_be_is_refused(changed, entry, value):
    folder = changed(lambda content: content["samples"][0].update({entry: value}))
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        Manifest.read(folder)


@pytest.mark.parametrize(("place", "value"), [(0, -8), (1, "object"), (1, "O"), (2, [-1, 32, 1]), (2, [2**40, 32, 1])])
def test_a_record_is_no_object_and_lies_in_its_shard(changed, place, value):
    def change(content):
        content["samples"][0]["arrays"]["image"][place] = value

    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        Manifest.read(changed(change))


def test_a_record_takes_no_more_memory_than_its_shard_has_bytes(changed):
    def change(content):
        entry = content["samples"][0]
        entry["shape"] = entry["arrays"]["image"][2] = [2**20, 2**20, 1]
        entry["arrays"]["labels"][2] = [2**20, 2**20]

    reader = ShardReader(changed(change), verify=False)
    with pytest.raises(InputError, match=r"\.npz: 'image' at byte \d+ is cut short"):
        reader.read(reader.manifest.samples[0])


def test_folds_name_no_run_outside_their_folder(tmp_path):
    for name in ("../other", "/etc", "a/b", ""):
        (tmp_path / "folds.json").write_text(json.dumps({"runs": ["fold1", name]}))
        with pytest.raises(InputError, match=f"names the run '{name}', which lies outside its folder"):
            runs.members_of(tmp_path)
    (tmp_path / "folds.json").write_text('{"runs": "fold1"}')
    with pytest.raises(InputError, match=r"folds\.json is damaged: it names no runs"):
        runs.members_of(tmp_path)


# OME-Zarr


def write_zarr(folder, path, **array):
    """An OME-Zarr of 4 x 4 pixels, all 9, whose metadata name their array by `path`."""
    content = {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": path}]}]}
    (folder / "0").mkdir(parents=True)
    (folder / ".zattrs").write_text(json.dumps(content))
    layout = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "|u1", "fill_value": 0, "order": "C"}
    (folder / "0" / ".zarray").write_text(json.dumps(layout | {"compressor": None, "filters": None} | array))
    (folder / "0" / "0.0").write_bytes(bytes([9] * 16))


def test_an_ome_zarr_reads_no_array_outside_its_folder(tmp_path):
    secret = tmp_path / "outside" / "secret.zarr"
    write_zarr(secret, "0")
    assert (open_raster(secret).read(0, slice(0, 4)) == 9).all()
    (tmp_path / "in").mkdir()
    paths = {"a": "../../outside/secret.zarr/0", "b": str(secret / "0"), "c": "0/../../../outside/secret.zarr/0"}
    for name, path in paths.items():
        write_zarr(tmp_path / "in" / f"{name}.zarr", path)
    write_zarr(tmp_path / "in" / "d.zarr", "linked/0")
    (tmp_path / "in" / "d.zarr" / "linked").symlink_to(secret)
    for name, path in {**paths, "d": "linked/0"}.items():
        with pytest.raises(InputError, match=rf"{name}\.zarr names the array '{re.escape(path)}', which lies outside"):
            open_raster(tmp_path / "in" / f"{name}.zarr")
    write_zarr(tmp_path / "in" / "e.zarr", "./0/../0")
    (tmp_path / "f.zarr").symlink_to(tmp_path / "in" / "e.zarr")  # a link to a whole image is its owner's
    assert (open_raster(tmp_path / "f.zarr").read(0, slice(0, 4)) == 9).all()


@pytest.mark.parametrize(
    "array",
    [
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    ],
)
def test_an_ome_zarr_unpickles_nothing(tmp_path, trap, array):
    write_zarr(tmp_path / "a.zarr", "0", **array)
    (tmp_path / "a.zarr" / "0" / "0.0").write_bytes(pickle.dumps(Touching(trap)))
    with pytest.raises(InputError, match=r"a\.zarr"):
        open_raster(tmp_path / "a.zarr").read(0, slice(0, 4))


# Files that unfold


def test_a_roi_set_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(outline_files, "LARGEST_SET", 2**22)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(5):
            archive.writestr(f"{number}.roi", b"Iout" + bytes(2**20))
    assert (tmp_path / "bomb.zip").stat().st_size < 2**16
    with pytest.raises(
        InputError, match=r"bomb\.zip is no ROI set of ImageJ \(ValueError: it unfolds to more than 4 MB"
    ):
        read_rois(tmp_path / "bomb.zip")


def test_a_member_unfolds_no_farther_than_the_directory_says(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(2**24))
    data = bytearray(content.getvalue())
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = (100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip is no ROI set of ImageJ"):
        read_rois(tmp_path / "a.zip")


@pytest.mark.parametrize("corner", ["1e300", "NaN", "Infinity", "-1e9"])
def test_outlines_beyond_any_image_are_refused(tmp_path, corner):
    path = tmp_path / "far.geojson"
    path.write_text(f'{{"type": "Polygon", "coordinates": [[[0, 0], [{corner}, 5], [5, 5]]]}}')
    with pytest.raises(InputError, match=r"far\.geojson is no GeoJSON of cells .*a corner lies beyond any image"):
        read_geojson(path)


def test_outlines_do_not_tell_an_enormous_image(tmp_path):
    (tmp_path / "far.geojson").write_text('{"type": "Polygon", "coordinates": [[[0, 0], [900000, 900000], [5, 5]]]}')
    message = r"those in .*far\.geojson the farthest, reach as far as row 900000 and column 900000, which is hardly an"
    with pytest.raises(InputError, match=message):
        find_series(tmp_path / "far.geojson")
    (tmp_path / "frames").mkdir()
    for frame, corner in enumerate(([900000, 5], [5, 900000])):  # each alone is none too large
        triangle = {"type": "Polygon", "coordinates": [[[0, 0], corner, [5, 5]]]}
        (tmp_path / "frames" / f"t{frame}.geojson").write_text(json.dumps(triangle))
    with pytest.raises(InputError, match="reach as far as row 900000 and column 900000"):
        find_series(tmp_path / "frames")


def test_a_geojson_nested_without_end_is_refused(tmp_path):
    (tmp_path / "deep.geojson").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.geojson is no GeoJSON of cells"):
        read_geojson(tmp_path / "deep.geojson")


# An image is read from its own file


WATCHING: list[list[str]] = []


def _note(event, arguments):
    if event == "open" and WATCHING and isinstance(arguments[0], str | os.PathLike):
        WATCHING[-1].append(os.path.realpath(arguments[0]))


@pytest.fixture
def opened():
    """Paths of all files that are opened meanwhile."""
    if not getattr(_note, "hooked", False):
        sys.addaudithook(_note)  # for the life of the process: there is no way to take one back
        _note.hooked = True
    WATCHING.append([])
    yield WATCHING[-1]
    WATCHING.pop()


READERS = [images.read_pages, images.read_labels, images.count_pages, images.read_spacing_um, open_raster]
READERS += [lambda path: images.read_page(path, 0)]
ELSEWHERE = r"a\.ome\.tif describes images that lie in other files, and only the file itself is read\. Open the series"


@pytest.mark.parametrize("kind", ["beside", "above", "absolute", "link", "pipe", "missing"])
def test_an_ome_tiff_leads_to_no_other_file(tmp_path, opened, kind):
    folder = tmp_path / "images"
    folder.mkdir()
    secret = (folder if kind == "beside" else tmp_path) / "secret.tif"
    tifffile.imwrite(secret, np.full((8, 8), 7, np.uint8), metadata=None)
    (folder / "link").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    # Something lies in the pipe, so that whoever opened it would not wait for ever.
    pipe = os.open(folder / "pipe", os.O_RDWR)
    os.write(pipe, secret.read_bytes())
    name = {"beside": "secret.tif", "above": "../secret.tif", "absolute": str(secret)}.get(kind, kind)
    text = ome(
        f'<TiffData IFD="0"><UUID FileName="{name}">urn:uuid:2</UUID></TiffData>', root='UUID="urn:uuid:1"', side=8
    )
    tifffile.imwrite(folder / "a.ome.tif", np.zeros((8, 8), np.uint8), description=text, metadata=None)
    opened.clear()
    for read in READERS:
        with pytest.raises(InputError, match=ELSEWHERE):
            read(folder / "a.ome.tif")
    os.close(pipe)
    others = {os.path.realpath(path) for path in (secret, folder / "pipe", folder / "missing")}
    assert str(folder / "a.ome.tif") in opened and not others & set(opened)


def test_companions_do_not_give_each_others_frames(tmp_path, opened):
    """Of a series of two frames in two files, each file gave both."""
    planes = "".join(
        f'<TiffData FirstT="{frame}" IFD="0"><UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for frame, name in enumerate("ab")
    )
    for frame, name in enumerate("ab"):
        text = ome(planes, frames=2, root=f'UUID="urn:uuid:{name}"', side=8)
        plane = np.full((8, 8), frame + 1, np.uint8)
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", plane, description=text, metadata=None)
    tifffile.imwrite(tmp_path / "c.ome.tif", plane, description=binary_only(), metadata=None)
    for name in "abc":
        opened.clear()
        for read in READERS:
            with pytest.raises(InputError, match=ELSEWHERE.replace("a", name, 1)):
                read(tmp_path / f"{name}.ome.tif")
        assert {os.path.basename(path) for path in opened if path.startswith(str(tmp_path))} == {f"{name}.ome.tif"}


def test_an_ome_tiff_that_names_itself_is_read(tmp_path):
    for name, root in (("a", 'UUID="urn:uuid:1"'), ("b", "")):
        plane = f'<TiffData IFD="0"><UUID FileName="{name}.ome.tif">urn:uuid:1</UUID></TiffData>'
        text = ome(plane, root=root, side=8)
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", np.ones((8, 8), np.uint8), description=text, metadata=None)
        assert all(np.all(images.read_pages(tmp_path / f"{name}.ome.tif") == 1) for _ in range(2))


def micro_manager(value, frame, *, version=0):
    """One frame (8, 8) of a series of two, as Micro-Manager writes it: an index before the first page."""
    summary = json.dumps({"MicroManagerVersion": "2", "Frames": 2, "Prefix": "x", "Channels": 1}).encode()
    index = 40 + len(summary)
    place = index + 28
    pixels = place + 2 + 12 * 10 + 4 + 8
    if version:
        head = struct.pack("<IIII", 483729, version, 2355492, len(summary)) + summary
        head = head.ljust(index + 20, b"\0")
    else:
        head = struct.pack("<IIIIIIII", 54773648, index, 0, 0, 0, 0, 2355492, len(summary)) + summary
        head += struct.pack("<II5I", 3453623, 1, 0, 0, frame, 0, place)
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, pixels)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 64), (51123, 2, 8, pixels - 8)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    data = (b"II*\0" + struct.pack("<I", place) + head).ljust(place, b"\0") + directory
    return data + b'{"a": 1}' + bytes([value]) * 64


def test_a_micro_manager_stack_leads_to_no_other_file(tmp_path, opened):
    for frame in range(2):
        (tmp_path / f"x_MMStack_{frame}.tif").write_bytes(micro_manager(frame + 1, frame))
    with tifffile.TiffFile(tmp_path / "x_MMStack_0.tif") as tif:
        assert tif.is_mmstack and len(tif.series[0]) == 2  # by itself tifffile reads both
    for frame in range(2):
        opened.clear()
        path = tmp_path / f"x_MMStack_{frame}.tif"
        assert np.array_equal(images.read_pages(path), np.full((1, 8, 8, 1), frame + 1))
        assert np.array_equal(open_raster(path).read(0, slice(0, 8)), np.full((8, 8, 1), frame + 1))
        assert {os.path.realpath(one) for one in opened if one.startswith(str(tmp_path))} == {str(path)}


def test_an_index_of_ndtiff_is_not_read(tmp_path, opened):
    (tmp_path / "x.tif").write_bytes(micro_manager(5, 0, version=3))
    (tmp_path / "NDTiff.index").write_bytes(b"")
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.is_ndtiff
    opened.clear()
    assert np.array_equal(images.read_pages(tmp_path / "x.tif"), np.full((1, 8, 8, 1), 5))
    assert not [one for one in opened if one.endswith("NDTiff.index")]


def npy_header(shape):
    """The first bytes of an .npy of uint8 that claims to have a shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"


def test_an_array_of_a_huge_declared_shape_is_refused(tmp_path):
    (tmp_path / "labels.npy").write_bytes(npy_header((10**6, 10**6)) + bytes(100))
    with pytest.raises(InputError, match=r"labels\.npy is no array of numpy"):
        find_series(tmp_path / "labels.npy")
    for level in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "checkpoint.npz", "w", level) as archive:
            archive.writestr("about.npy", npy_header((10**6, 10**6)) + bytes(100))
        with pytest.raises(
            InputError, match=r"checkpoint\.npz is damaged \(about\.npy claims to be larger than the file"
        ):
            Checkpoint.read(tmp_path / "checkpoint.npz")


def test_aliases_that_unfold_without_end_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"laughs\.yaml is not valid YAML: its aliases unfold to more than 100000 values"
    ):
        experiments.read(tmp_path / "laughs.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "an alias stands for what it lies in"),
        ("a: " + "[" * 60 + "]" * 60, "it is nested more than 50 levels deep"),
        ("a: " + "[" * 2000, "it is nested more than 50 levels deep"),
        ("a: 2001-13-45", r"a value cannot be read \(ValueError: month must be in 1..12"),
        ("a: " + "9" * 5000, r"a value cannot be read \(ValueError: Exceeds the limit"),
        ("a: !!int ''", "a value cannot be read"),
        ("a: !!bool maybe", "a value cannot be read"),
        ("# " + "x" * 2**20, "it is 1048578 characters long; an experiment has some thousand"),
    ],
)
def test_yaml_that_is_no_experiment_is_explained(tmp_path, text, message):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"odd\.yaml is not valid YAML: {message}"):
        experiments.read(tmp_path / "odd.yaml")


def test_anchors_are_taken_where_they_are_few():
    assert yaml_text.load("a: &x [1, 1e-4]\nb: *x\n") == {"a": [1, 1e-4], "b": [1, 1e-4]}
    assert yaml_text.load("") is None


def test_an_honest_model_loads(tmp_path):
    identity().save(tmp_path / "model.keras")
    assert runs.load_model(tmp_path / "model.keras").get_layer("probability")
