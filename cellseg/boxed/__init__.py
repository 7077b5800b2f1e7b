"""The box: trained runs and experiments that come with the package, beside this file, found by their name.

Reading a run folder is the work of `cellseg.runs`, reading an experiment that of `cellseg.experiment`;
`experiments/box_model.py` makes a box out of a trained run.
"""

from pathlib import Path

from pipelines.errors import nearest

BOX = Path(__file__).parent
EXPERIMENTS = BOX / "experiments"  # a link in the checkout, a folder in the wheel; the sample images lie in its data/
# What makes a folder a run, finished or not: an experiment.yaml lies in folders of shards and of people's own, too.
MODEL, BACKUP = "model.keras", "backup"


def names() -> list[str]:
    """The runs that come with the package, sorted."""
    return sorted(path.parent.name for path in BOX.glob(f"*/{MODEL}"))


def find_run(name: Path | str) -> Path:
    """The folder of a run.

    Args:
        name: A folder, or the name of a run in the box. A folder of that name in the current directory goes first if
            it is a run; a folder of images does not hide the box.

    Returns:
        The folder in the box, or `name` itself, whether there is such a folder or not.
    """
    folder = Path(name)
    is_run = (folder / MODEL).exists() or (folder / BACKUP).exists()
    return BOX / folder if not is_run and str(folder) in names() else folder


def find_experiment(name: Path | str) -> Path:
    """The file of an experiment: `name` itself, or where that is no file, the one in the box: demo, or demo.yaml."""
    inside = EXPERIMENTS / f"{str(name).removesuffix('.yaml')}.yaml"
    return inside if not Path(name).is_file() and Path(name).name == str(name) and inside.is_file() else Path(name)


def known(name: Path | str) -> str:
    """A sentence for messages: the names in the box, and the nearest one."""
    return f"Runs that come with cellseg: {', '.join(names())}.{nearest(str(name), names())}"
