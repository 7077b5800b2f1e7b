"""Cluster: tasks on the workers of a Dask scheduler, answered in order, in bounded memory, repeated if a worker dies.

What a task does is its caller's function: `pipelines.loading` reads samples there, `cellseg.cluster` predicts. Nothing
here is needed, and Dask is not imported, as long as no scheduler is named.
"""

import collections
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import InputError, InterruptionError

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 8  # until somebody must have answered
ALONE_S = 60  # that work waits for a new worker when the last one has gone
AGAIN = "and give the same command again (cellseg-predict: with --resume); it goes on where it was."
LOOK_S = 2  # between two looks at who is there


@contextlib.contextmanager
def connected(scheduler: str | None) -> Iterator["Client | None"]:
    """A client of the Dask scheduler at an address such as `tcp://host:8786`; None for None.

    Raises:
        InputError: Dask is not installed, nobody answers there, or the scheduler has no workers.
    """
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise InputError(
            f"--scheduler needs dask.distributed ({error}). Install it: pip install 'cellseg[cluster]'."
        ) from error
    try:
        _knock(scheduler)
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, OverflowError) as error:  # a TimeoutError is an OSError
        raise InputError(
            f"No Dask scheduler answers at {scheduler} ({error}). Start one with `dask scheduler` and give the address "
            "that it prints, for example tcp://host:8786."
        ) from error
    with client, _quiet():
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError as error:
            raise InputError(
                f"The Dask scheduler at {scheduler} has no workers. Start some with `dask worker {scheduler}`."
            ) from error
        yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong is said once, by us; Dask's own log repeats it with tracebacks."""
    logs = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _knock(scheduler: str) -> None:
    """Raise OSError or ValueError where nobody listens; a Dask client that has failed is slow to go."""
    import socket

    from distributed.comm import get_address_host_port

    socket.create_connection(get_address_host_port(scheduler), timeout=CONNECT_S).close()


def spread(
    client: "Client", function: Callable[[Any], Any], items: Iterable[Any], *, name: Callable[[Any], object] = str
) -> Iterator[Any]:
    """`function` of each item, in order, computed by the cluster's workers.

    About two items a thread of the cluster are under way at any time. A task whose worker dies is done again by
    another one, so it must not matter whether it is done twice.

    Args:
        client: From `connected`.
        function: Importable on the workers; it and the items can be pickled.
        items: Taken one by one, as there is room.
        name: What to call an item in a message.

    Raises:
        InputError: of the function itself, or workers die of an item.
        InterruptionError: no worker is left, or the scheduler has gone.
    """
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    under_way: collections.deque[tuple[object, Future]] = collections.deque()
    room = _Room(client)
    try:
        for item in items:
            under_way.append((name(item), client.submit(function, item, pure=False)))
            while len(under_way) >= room.now():
                yield _answer(client, *under_way.popleft())
        while under_way:
            yield _answer(client, *under_way.popleft())
    except (CommClosedError, FutureCancelledError):
        raise InterruptionError(f"The Dask scheduler has gone. Start it again, {AGAIN}") from None
    finally:
        with contextlib.suppress(Exception):  # a scheduler that has gone needs not be told
            client.cancel([future for _, future in under_way])


def on_all_workers(client: "Client", function: Callable[[Any], object], item: object) -> None:
    """`function` of an item once on each worker that is there; one that goes meanwhile is passed over."""
    client.run(function, item, on_error="ignore")


class _Room:
    """How many items may be under way: workers come and go."""

    def __init__(self, client: "Client"):
        self._client, self._last, self._room = client, 0.0, 0

    def now(self) -> int:
        if not self._room or time.monotonic() - self._last >= LOOK_S:
            self._room = max(2, 2 * sum(self._client.nthreads().values()))
            self._last = time.monotonic()
        return self._room


def _answer(client: "Client", name: object, future: "Future") -> Any:
    alone_since = None
    while True:
        try:
            error = future.exception(timeout=LOOK_S)
        except TimeoutError:
            alone_since = None if client.nthreads() else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > ALONE_S:
                raise InterruptionError(f"No worker of the Dask cluster is left. Start some, {AGAIN}") from None
        else:
            if error is None:
                return future.result()
            raise _explained(error, name)


def _explained(error: BaseException, name: object) -> BaseException:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return InputError(
            f"{name}: every worker of the Dask cluster that took it has died, most likely of too little memory. Give "
            "the workers more (`dask worker --memory-limit`)."
        )
    if isinstance(error, ModuleNotFoundError) or "Can't get attribute" in str(error):  # the latter from unpickling
        return InputError(
            f"The workers of the Dask cluster lack what is installed here ({error}). Install the same version of "
            "cellseg there, with all it needs."
        )
    return error


def must_see(paths: Iterable[Path | str]) -> None:
    """On a worker: raise InputError if it does not see files that are there on the machine that asks."""
    unseen = next((path for path in paths if not Path(path).exists()), None)
    if unseen is not None:
        import socket

        raise InputError(
            f"A Dask worker on {socket.gethostname()} does not see {unseen}. The workers need the same file system, "
            "mounted at the same place."
        )
