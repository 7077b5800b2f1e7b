"""What holds for all tests, or is made once for all of them."""

import fcntl
import json

import pytest
from hypothesis import HealthCheck, settings

from pipelines import patch_sheet, preview
from tests import backends

# The same examples everywhere, and no opinion on how fast a machine is that others use, too.
settings.register_profile("cellseg", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cellseg")

COARSE = 30  # dots an inch; drawing at 150 takes three quarters of the time of a small preparation


@pytest.fixture(autouse=True, scope="session")
def coarse_previews():
    """Nearly all tests look elsewhere; for the session, since module fixtures prepare data, too."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (preview, patch_sheet):
            patch.setattr(module, "DPI", COARSE)
        yield


@pytest.fixture
def sharp_previews(monkeypatch):
    """The resolution that users see."""
    monkeypatch.setattr(preview, "DPI", 150)
    monkeypatch.setattr(patch_sheet, "DPI", 120)


@pytest.fixture(scope="session")
def answer_of(tmp_path_factory, request):
    """(backend, question) -> what the backend answers to a question of `tests.backends`; each is asked once.

    The worker processes of pytest-xdist share the answers in the folder above their own.
    """
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent

    def answer(backend, question):
        path = folder / f"answers-{backend}.json"
        with open(folder / f"answers-{backend}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                path.write_text(json.dumps(backends.ask(backend)))
        given, failure = json.loads(path.read_text())[question]
        assert failure is None, failure
        return given

    return answer
