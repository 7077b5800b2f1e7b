import subprocess
import sys

from cellseg.cli import shell
from cellseg.cli.report import report


def test_prints_the_path_of_the_report(tmp_path, capsys):
    (tmp_path / "experiment.yaml").write_text("name: few cells\n")
    assert shell.run(report, [str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "few cells" in (tmp_path / "report.html").read_text()


def test_folder_that_is_no_run(tmp_path, capsys):
    assert shell.run(report, [str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path} is no run folder: experiment.yaml was looked for" in err
    assert list(tmp_path.iterdir()) == []


def test_no_argument(capsys):
    assert shell.run(report, []) == 2
    assert "Missing argument 'RUN'" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom cellseg.cli.report import main\nsys.argv = ['cellseg-report', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('keras', 'tensorflow', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "RUN" in done.stdout
    assert done.stdout.endswith("[]\n")
