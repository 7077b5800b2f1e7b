import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from cellseg import workflow
from cellseg.cli import shell
from cellseg.cli.train import train as command
from cellseg.tensorboard_server import serving
from pipelines.errors import InputError
from tests.browser import CHROMIUM, Page
from tests.dashboards import bad, good, train

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
EXPERIMENT = "name: cells\ndata: {source: raw, layout: pairs}\n"


def ask(address, path, body=None):
    """What the server answers, read from JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def ask_until(right, address, path, body=None):
    """The first answer that is right, or the last one: the server has an address before it has read all files."""
    deadline = time.monotonic() + PATIENCE_S
    while not right(answer := answer_or_none(address, path, body)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def answer_or_none(address, path, body):
    try:
        return ask(address, path, body)
    except urllib.error.HTTPError:  # it knows no such run yet
        return None


def gone(address):
    try:
        urllib.request.urlopen(address, timeout=30)
    except (urllib.error.URLError, ConnectionError):
        return True
    return False


def port_of(address):
    return urllib.parse.urlparse(address).port


def listening_at(port):
    """Addresses of this machine at which somebody listens at a port, as the kernel has them."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, _, number = local.rpartition(":")
            if int(number, 16) == port and state == "0A":  # LISTEN
                found.append(".".join(str(byte) for byte in reversed(bytes.fromhex(address))))
    return found


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two trainings that HParams can compare, of which one is better."""
    folder = tmp_path_factory.mktemp("dashboard")
    train(folder, [bad, good], name="a", rate=0.5, pictures=1)
    train(folder, [bad, bad], name="b", rate=0.25)
    return folder / "runs"


def test_the_pages_show_scalars_images_and_hparams(logs, tmp_path):
    """In a real browser; what stands on the pages comes from the server's data, which is read beside it."""
    with serving(logs) as address:
        assert urllib.parse.urlparse(address).hostname == "127.0.0.1"
        assert listening_at(port_of(address)) == ["127.0.0.1"]
        path = "data/plugin/scalars/scalars?run=a%2Ftensorboard%2Fvalidation&tag=epoch%2Fdice"
        points = ask_until(lambda points: points and len(points) == 2, address, path)
        assert [step for _, step, _ in points] == [1, 2] and points[1][2] == 1
        wanted = {"input/1 cell0", "image, truth, probability/image0", "threshold curve/validation"}
        name = "a/tensorboard/pictures"
        tags = ask_until(lambda tags: wanted <= set(tags.get(name, ())), address, "data/plugin/images/tags")
        assert wanted <= set(tags[name])
        wanted = {"experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN"], "colParams": [], "sliceSize": 9}
        path = "data/plugin/hparams/session_groups"
        groups = ask_until(lambda groups: groups and len(groups["sessionGroups"]) == 2, address, path, wanted)[
            "sessionGroups"
        ]
        assert {group["name"]: group["hparams"]["train.learning_rate"] for group in groups} == {
            "runs/a": 0.5,
            "runs/b": 0.25,
        }
        for plugin, tag in (
            ("histograms", "weights logits/kernel"),
            ("pr_curves", "pixels"),
            ("text", "experiment.yaml"),
        ):
            assert tag in str(ask_until(lambda tags: tag in str(tags), address, f"data/plugin/{plugin}/tags"))  # noqa: B023
        if CHROMIUM is None:
            pytest.skip("no Chromium is installed: the data were read from the server, the pages were not looked at")
        asyncio.run(look_at(address, tmp_path))


async def look_at(address, folder):
    async with Page(folder / "browser") as page:
        await page.open(f"{address}#scalars")
        await page.until("texts().includes('epoch') && texts().includes('epoch/learning_rate')")
        # A curve: the line of a chart that has points.
        await page.until("elements().some(one => one.tagName == 'path' && (one.getAttribute('d') || '').includes('L'))")
        await page.run("location.hash = 'images'")
        width = await page.until(
            "elements().filter(one => one.tagName == 'IMG' && one.src.includes('individualImage'))"
            ".map(one => one.naturalWidth).find(one => one > 0)"
        )
        assert width > 500
        await page.run("location.hash = 'hparams'")
        await page.until(
            "['runs/a', 'runs/b', 'train.learning_rate', '0.50000', '0.25000'].every(one => texts().includes(one))"
        )


def test_going_on_from_a_checkpoint_replaces_what_came_after_it_and_a_new_phase_nothing(tmp_path):
    board, clock = train(tmp_path, [bad, good, bad, bad])
    board.rewind(1, 100.0)  # epoch 1 was over; the checkpoint knew of it
    for name, value in {"best": 0.5, "best_epoch": 1, "epochs": 1, "drawn": 1}.items():
        assert name in board.kept
        setattr(board, name, value)
    for epoch in (1, 2):  # each a phase of its own
        board.on_epoch_begin(epoch)
        clock.now += 10
        figures = {"loss": 9.0 + epoch}
        board._validation.on_epoch_end(epoch, figures)
        board.on_epoch_end(epoch, figures)
        board.on_train_end()
    with serving(tmp_path / "runs" / "a" / "tensorboard") as address:
        path = "data/plugin/scalars/scalars?run=train&tag=epoch%2Floss"
        losses = ask_until(lambda losses: losses and losses[-1][1:] == [3, 11], address, path)
        path = "data/plugin/scalars/scalars?run=experiment&tag=run%2Fminutes"
        minutes = ask_until(lambda minutes: minutes and minutes[-1][2] == 2, address, path)
        texts = ask_until(lambda texts: texts.get("experiment"), address, "data/plugin/text/tags")
    assert [(step, value) for _, step, value in losses] == [(1, 1), (2, 10), (3, 11)]
    assert [value for _, _, value in minutes] == pytest.approx([100 / 60, 110 / 60, 2])
    assert texts["experiment"] == ["experiment.yaml"]


def test_it_ends_with_its_block_and_not_before(logs):
    with pytest.raises(KeyboardInterrupt), serving(logs) as address:
        assert not gone(address)
        raise KeyboardInterrupt
    assert gone(address)


def test_it_ends_when_the_training_is_killed(logs):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom cellseg.tensorboard_server import serving\n"
        f"with serving(Path({str(logs)!r})) as address:\n"
        "    print(address, flush=True)\n    sys.stdin.read()\n    os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    address = process.stdout.readline().strip()
    with socket.create_connection(("127.0.0.1", port_of(address)), timeout=60) as connection:
        process.communicate()
        assert process.returncode == -9
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""  # waits until the server closes it, one way or the other
    assert gone(address)


@pytest.fixture
def taken():
    """A port of 127.0.0.1 on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_said_before_any_work(tmp_path, capsys, monkeypatch, taken):
    monkeypatch.setattr(workflow, "train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "cells.yaml").write_text(EXPERIMENT)
    arguments = [str(tmp_path / "cells.yaml"), "--out", str(tmp_path / "run"), "--dashboard-port", str(taken)]
    assert shell.run(command, arguments) == 2
    said = capsys.readouterr().err
    assert f"cellseg-train: The dashboard cannot have port {taken} of 127.0.0.1" in said
    assert "already in use" in said and "Choose another with --dashboard-port" in said and "Traceback" not in said


def test_a_port_that_is_none_is_a_usage_error(tmp_path, capsys):
    assert shell.run(command, ["cells.yaml", "--dashboard-port", "70000"]) == 2
    assert "70000 is not in the range 1<=x<=65535" in capsys.readouterr().err


def test_the_command_says_the_address_and_ends_the_server_on_ctrl_c(tmp_path, capsys, monkeypatch):
    seen = []

    def interrupted(experiment, run, **_):
        said = capsys.readouterr()
        assert said.out == ""
        seen.append(said.err.removeprefix("Dashboard: ").strip())
        assert str(run / "tensorboard") in str(ask(seen[0], "data/environment"))
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "train", interrupted)
    (tmp_path / "cells.yaml").write_text(EXPERIMENT)
    status = shell.run(command, [str(tmp_path / "cells.yaml"), "--out", str(tmp_path / "run"), "--dashboard"])
    assert status == 130 and gone(seen[0])


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    broken = tmp_path / "broken.py"
    broken.write_text("import sys\nsys.exit('grpc is missing')\n")
    monkeypatch.setattr("cellseg.tensorboard_server.PROGRAM", broken)
    with pytest.raises(InputError, match="did not start; tensorboard says: grpc is missing"), serving(tmp_path):
        pass


def test_nothing_in_the_working_folder_passes_for_a_library(logs, tmp_path, monkeypatch):
    (tmp_path / "tensorboard.py").write_text("raise RuntimeError('not this one')\n")
    monkeypatch.chdir(tmp_path)
    assert os.path.relpath(logs) != str(logs)
    with serving(Path(os.path.relpath(logs))) as address:
        assert str(logs) in str(ask(address, "data/environment"))
