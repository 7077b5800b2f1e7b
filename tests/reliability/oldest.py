"""The oldest dependencies that setup.cfg allows, in an environment of their own, under a good part of the suite.

A script (`make test-oldest`). Where a lower bound does not work any more, it is raised in setup.cfg.
"""

import argparse
import configparser
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest", "pytest-xdist", "hypothesis")
# Deprecations of old packages among new ones are not ours to mend; `filterwarnings = error` is for the newest.
OPTIONS = ("-q", "-n", "2", "--dist", "loadfile", "-o", "filterwarnings=default", "--disable-warnings")
# Left out: what needs extras, which have no oldest environment, and other backends.
LEFT_OUT = (
    *("tests/pipelines/test_cluster.py", "tests/cellseg/test_cluster.py", "tests/end_to_end/test_cluster.py"),
    *("tests/cellseg/test_export.py", "tests/cellseg/test_figures_movies.py", "tests/end_to_end/test_backends.py"),
    *("tests/cellseg/test_search.py", "tests/end_to_end/test_search_and_folds.py"),
    *("tests/end_to_end/test_search_docs.py", "tests/cellseg/models/test_mask_rcnn_align.py"),
)


def bounds() -> list[str]:
    """`name==lowest` for each requirement of the package, and of the tools that test it."""
    settings = configparser.ConfigParser(comment_prefixes=("#",))
    settings.read(ROOT / "setup.cfg")
    needed = settings["options"]["install_requires"].split("\n")
    needed += [one for one in settings["options.extras_require"]["dev"].split("\n") if one.startswith(TOOLS)]
    found = [re.fullmatch(r"([\w.-]+)>=([\d.]+)(,.*)?", line.strip()) for line in needed if line.strip()]
    missing = [line for line, match in zip(filter(str.strip, needed), found, strict=True) if match is None]
    if missing:
        raise SystemExit(f"setup.cfg: no lower bound in {', '.join(missing)}")
    return [f"{match[1]}=={match[2]}" for match in found if match]


def main() -> int:
    """Make the environment, print what is in it, run the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the environment is made, kept afterwards [temporary]")
    parser.add_argument("tests", nargs="*", default=["tests"], help="what to run [all but what needs extras]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        environment = (given.folder or Path(temporary)) / "oldest"
        python = environment / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--only-binary", ":all:", *bounds()], check=True)
        subprocess.run([*install, "--no-deps", ROOT], check=True)  # for the commands; the tests import the checkout
        print(*bounds(), flush=True)
        left_out = [f"--ignore={path}" for path in LEFT_OUT]
        chosen = ["-m", "not torch and not workers"]
        environ = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(
            [python, "-m", "pytest", *OPTIONS, *chosen, *left_out, *given.tests], cwd=ROOT, env=environ
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
