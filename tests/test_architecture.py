"""The layers of docs/architecture.md, read from the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Lower rooms first; a room imports only rooms of its own layer or below.
LAYERS = [
    {"pipelines"},
    {"overlap", "tracks", "named", "outlines", "boxed", "templating", "lines", "termination", "yaml_text"},
    {"detections", "models", "losses", "optimizers", "metrics", "answers", "cuts", "instances", "merging"}
    | {"tracking", "measuring", "reconstruction", "figures", "error_analysis"}
    | {"shapes", "motion", "meshes", "label_series"}
    | {"mistakes", "intervals", "pairing", "interchange"},
    {"sections"},
    {"experiment"},
    {"networks", "runs", "environment", "preparation", "averaging", "moving_statistics", "workers"},
    {"geometry", "export", "magnification", "predictors", "inference"},
    {"thresholds", "held_out", "tuning"},
    {"callbacks", "checkpoints", "guards", "checkpointing", "trainer"},
    {"dashboard", "dashboard_events", "dashboard_pictures", "tensorboard_server", "tensorboard_process"}
    | {"detecting", "streams", "transfer", "training_parts", "lockstep", "placement", "distribution"},
    {"fitting", "training", "evaluation", "score_files", "classification", "report", "prediction", "following"}
    | {"score_tables"}
    | {"published", "comparison", "contenders", "run_list", "reproduction"}
    | {"resuming"}
    | {"conveyor", "results", "stages", "cluster", "views", "streaming"}
    | {"image_series", "series_prediction", "class_columns", "measured_files", "volumes", "pages"}
    | {"sequence_pictures", "sequence_report", "volume_report"},
    {"run_pictures"},
    {"scoring"},
    {"workflow"},
    {"search", "search_space", "search_trial", "search_results", "study", "folds"},
    {"cli"},
]
NUMPY_ROOMS = (
    "overlap",
    "tracks",
    "outlines",
    "interchange",
    "answers",
    "averaging",
    "cuts",
    "detections",
    "instances",
    "merging",
    "metrics",
    "measuring",
    "tracking",
    "label_series",
    "shapes",
    "motion",
    "reconstruction",
    "meshes",
    "error_analysis",
    "thresholds",
    "evaluation",
    "mistakes",
    "intervals",
    "pairing",
    "score_files",
    "published",
    "comparison",
    "contenders",
    "experiment",
)


def files():
    return sorted([*ROOT.glob("pipelines/**/*.py"), *ROOT.glob("cellseg/**/*.py")])


def imports(path, *, top_only=False):
    """Names of the modules that a file imports, anywhere in it or at its top level alone."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    """'cellseg.metrics.pixel' -> 'metrics'; anything in pipelines -> 'pipelines'; None for other packages."""
    parts = module.split(".")
    if parts[0] == "pipelines":
        return "pipelines"
    return parts[1] if parts[0] == "cellseg" and len(parts) > 1 else None


def layer(name):
    return next((number for number, rooms in enumerate(LAYERS) if name in rooms), None)


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_imports_point_downwards(path):
    own = room(module_name(path))
    if path.name == "__init__.py" and path.parent.name == "cellseg":
        return  # the package's front door: `cellseg.load_run`
    assert layer(own) is not None, f"{own} has no layer"
    for module in imports(path):
        other = room(module)
        if layer(other) is not None:
            assert layer(other) <= layer(own), f"{module_name(path)} imports {module}, which lies above it"


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_pipelines_never_know_models(path):
    if module_name(path).startswith("pipelines"):
        assert not [m for m in imports(path) if m.split(".")[0] in ("cellseg", "keras")]


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_numpy_rooms_never_import_keras(path):
    if room(module_name(path)) in NUMPY_ROOMS and path.name != "streaming.py":
        assert not [m for m in imports(path, top_only=True) if m.split(".")[0] in ("keras", "tensorflow")]


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_tensorflow_is_imported_where_it_is_used(path):
    # Inside functions alone, so that models, losses and measures run on every Keras backend.
    assert not [m for m in imports(path, top_only=True) if m.split(".")[0] == "tensorflow"]
    allowed = {
        "pipelines.dataset",
        "pipelines.shards.tfrecord",
        "cellseg.models.fast",
        "cellseg.training",
        "cellseg.lockstep",
        "cellseg.distribution",
        "cellseg.placement",
        "cellseg.cli.shell",
    }
    if module_name(path) not in allowed:
        assert not [m for m in imports(path) if m.split(".")[0] == "tensorflow"]


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_rooms_are_small_and_say_what_lives_there(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 350, "what second subject moved in?"
    assert ast.get_docstring(ast.parse(text)), "the first line says what lives here"


def test_preparing_npz_shards_imports_neither_keras_nor_tensorflow(tmp_path):
    from tests.datasets import write_pairs

    source = write_pairs(tmp_path / "raw", 6)
    program = (
        "import sys\nfrom cellseg.cli import prepare, shell\n"
        f"status = shell.run(prepare.prepare, [{str(source)!r}, '--layout', 'pairs', '--format', 'npz', '--out', "
        f"{str(tmp_path / 'out')!r}])\n"
        "loaded = {'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
