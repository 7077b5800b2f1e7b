import sys

import pytest

from pipelines import cluster
from pipelines.errors import InputError


def test_without_a_scheduler_nothing_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with cluster.connected(None) as client:
        assert client is None
    with (
        pytest.raises(InputError, match=r"--scheduler needs dask.distributed .*pip install 'cellseg\[cluster\]'"),
        cluster.connected("tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("somewhere", "missing port number in address 'somewhere'"),
        ("mail://host:1", "unknown address scheme 'mail'"),
        ("tcp://host:port", "invalid literal"),
    ],
)
def test_an_address_where_nobody_answers(address, reason):
    with (
        pytest.raises(InputError, match=f"No Dask scheduler answers at {address} .*{reason}.*`dask scheduler`"),
        cluster.connected(address),
    ):
        pass


def test_a_worker_without_the_files_says_so(tmp_path):
    cluster.must_see([tmp_path])
    with pytest.raises(InputError, match=r"Dask worker on .* does not see .*/a.tif. .* the same file system"):
        cluster.must_see([tmp_path, tmp_path / "a.tif"])


def test_a_worker_of_another_version_is_explained():
    for reason in ("No module named 'cellseg'", "Can't get attribute 'Job' on <module 'cellseg.cluster'>"):
        kind = ModuleNotFoundError if reason.startswith("No") else AttributeError
        explained = cluster._explained(kind(reason), "a.tif")
        assert isinstance(explained, InputError)
        assert f"lack what is installed here ({reason}). Install the same version" in str(explained)
    for own in (OSError(5, "gone"), AttributeError("'int' object has no attribute 'x'")):
        assert cluster._explained(own, "a.tif") is own


def test_an_item_that_kills_its_workers_is_named():
    from distributed import KilledWorker

    explained = cluster._explained(KilledWorker.__new__(KilledWorker), "a.tif")
    assert "a.tif: every worker of the Dask cluster that took it has died" in str(explained)
