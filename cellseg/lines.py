"""Lines: connections between the chief of a training and its other workers, and what happens when one ends.

How the workers find each other lives in `cellseg.workers`, what they say in `cellseg.lockstep`.
"""

import contextlib
import hashlib
import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.errors import InterruptionError

SILENT_S = 30  # until a machine that has gone without a word is taken for gone
LAST_WORDS_S = 10.0  # that an error of another worker may take to arrive
GRACE_S = 20.0  # from the end of another worker until a process that still waits for it ends itself
AGAIN = "Start all workers again with cellseg-train --resume RUN; they go on from the last checkpoint."


class Line:
    """A connection between the chief and another worker: messages of JSON, with bytes behind them where needed."""

    def __init__(self, connection: socket.socket, name: str):
        self.name = name
        self._connection = connection
        self._lock = threading.Lock()
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", SILENT_S // 3), ("TCP_KEEPINTVL", SILENT_S // 6), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):  # a machine that lost its power says nothing
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def send(self, message: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send a message. Raises InterruptionError if the other one has gone."""
        head = json.dumps(message).encode()
        try:
            with self._lock:
                self._connection.sendall(struct.pack(">QQ", len(head), len(payload)) + head)
                self._connection.sendall(payload)
        except OSError as error:
            raise self.gone() from error

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next message and its bytes. Raises InterruptionError if the other one has gone, or says that it must."""
        try:
            self._connection.settimeout(timeout)
            head, payload = struct.unpack(">QQ", self._exactly(16))
            message = json.loads(self._exactly(head))
            content = self._exactly(payload)
            self._connection.settimeout(None)
        except TimeoutError as error:
            raise InterruptionError(
                f"{self.name[0].upper()}{self.name[1:]} has not answered for {timeout:g} s. {AGAIN}"
            ) from error
        except (OSError, ValueError) as error:
            raise self.gone() from error
        if "error" in message:
            raise InterruptionError(f"{self.name[0].upper()}{self.name[1:]} has stopped: {message['error']}")
        return message, content

    def gone(self) -> InterruptionError:
        """The error of a connection that has ended."""
        return InterruptionError(
            f"{self.name[0].upper()}{self.name[1:]} has gone: it was killed, or its machine cannot be reached. {AGAIN}"
        )

    def ended(self, wait_s: float) -> bool:
        """Whether the other one ends the connection within this time; what has come stays to be received."""
        poll = select.poll()
        poll.register(self._connection, getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(1000 * wait_s))

    def close(self) -> None:
        """End the connection; who waits at it, here or there, is told."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(min(size - len(parts), 2**20))
            if not part:
                raise ConnectionResetError("closed")
            parts += part
        return bytes(parts)


def digest(content: bytes | memoryview) -> str:
    """Short name of some bytes: equal bytes, equal names."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@contextlib.contextmanager
def watched(lines: Sequence[Line], *, fail: Callable[[InterruptionError], None]) -> Iterator[None]:
    """Call `fail` from a thread if one of the lines ends meanwhile and this process still stands `GRACE_S` later.

    Who waits for another worker inside of TensorFlow might wait for ever.
    """
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for line in lines:
                if line.ended(1.0 / len(lines)) and not over.wait(GRACE_S):
                    fail(last_words([line]) or line.gone())
                    return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def last_words(lines: Sequence[Line]) -> InterruptionError | None:
    """Why another worker has stopped, if one has: what it said, or that it said nothing."""
    for line in lines:
        if line.ended(LAST_WORDS_S / len(lines)):
            try:
                while True:
                    line.receive(LAST_WORDS_S)
            except InterruptionError as error:
                return error
    return None
