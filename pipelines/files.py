"""Files and folders that appear whole or not at all, and their checksums.

Image formats live in `pipelines.images`, shard formats in `pipelines.shards`.
"""

import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import InputError, InterruptionError

PARTIAL = ".partial"
LONGEST_NAME = 255  # bytes, of the usual file systems
WORK = f".work{PARTIAL}"  # end of the name of a folder of unfinished work
_LEFTOVER = re.compile(rf"\..*{re.escape(PARTIAL)}-(?P<host>[0-9a-f]{{8}})-(?P<process>\d+)(\.[^.]*)?")
_MOVED = re.compile(rf"\.(?P<name>.+)(\.replaced-\d+|{re.escape(PARTIAL)}\.lock)")


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success move it to `path`, on any error remove it.

    A killed process leaves its temporary file behind; the next one that writes into the folder removes it.

    Args:
        path: Final name. Its folder is created if missing; an existing file is replaced in one step.

    Yields:
        The temporary name, with the same suffix, for the caller to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_once(path.parent.absolute(), os.getpid())
    temporary = temporary_name(path, os.getpid())
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path, process: int) -> Path:
    """The name under which a process of this machine writes what becomes `path`."""
    end = f"{PARTIAL}-{_host()}-{process}{path.suffix}"
    stem = path.stem
    if len(os.fsencode(f".{stem}{end}")) > LONGEST_NAME:
        # Cut, but no two files of one folder alike: threads may write both at once.
        end = f"~{zlib.crc32(os.fsencode(path.name)):08x}{end}"
        while stem and len(os.fsencode(f".{stem}{end}")) > LONGEST_NAME:
            stem = stem[:-1]
    return path.with_name(f".{stem}{end}")


def remove_leftovers(folder: Path | str) -> None:
    """Remove what killed processes have left in a folder, if it is there: what nobody will go on with.

    These are unfinished files of processes of this machine that live no more, folders of unfinished work
    (`pipelines.disk.work_folder`), and of `whole_folder` what a kill between its last moves leaves. Files of other
    machines, of living processes, and unfinished folders stay.
    """
    try:
        left = [path for path in Path(folder).iterdir() if path.name.startswith(".")]
    except OSError:  # not there, or not to be listed
        return
    for path in left:
        with contextlib.suppress(OSError, InputError):  # somebody else's, or somebody is at it
            _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    if known := _LEFTOVER.fullmatch(path.name):
        if known["host"] == _host() and not _lives(int(known["process"])):
            path.unlink(missing_ok=True)
    elif known := _MOVED.fullmatch(path.name):
        with _only_writer(path.with_name(known["name"])):
            _put_back(path.with_name(known["name"]))
    elif path.name.endswith(WORK) and path.is_dir() and not path.is_symlink():
        with locked_folder(path):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder itself; it ends with the process.

    Raises:
        BlockingIOError: another process holds it.
        FileNotFoundError: it is not there, or was removed by who held the lock before.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(folder, handle):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(folder))
        yield
    finally:
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    """Whether what was opened still has its name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@functools.lru_cache(maxsize=64)
def _remove_leftovers_once(folder: Path, process: int) -> None:
    """Once a folder and process: looking through thousands of files for each of them would take its time."""
    remove_leftovers(folder)


def _host() -> str:
    """A short name of this machine: on a shared file system process numbers alone would mean two."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; no number of a process
        return True
    return True


@contextlib.contextmanager
def whole_folder(
    path: Path | str, *, marker: str, overwrite: bool = False, keep: str = "", after_errors: bool = False
) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success move it to `path`, on any error remove it.

    Args:
        path: Final name; of a link, what it leads to.
        marker: File that every folder of this kind holds. Only a folder with this file, or an empty one, is
            ever replaced: `--overwrite` with a wrong path must not delete somebody's data.
        overwrite: Replace an existing folder of this kind. Its old content is there until the new one is whole.
        keep: File that makes the temporary folder worth keeping: where it is there after an interruption (Ctrl-C, an
            `InterruptionError`, or a kill, which asks nobody), the next call for `path` gets the folder as it was left.
        after_errors: Keep it after any other error, too.

    Yields:
        The temporary folder; empty, unless an interrupted call left one worth keeping.

    Raises:
        InputError: `path` exists and may not be replaced, or another process is writing it.
    """
    path = followed(path)
    check_free(path, marker=marker, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(path)
    with _only_writer(path):
        _put_back(path)
        check_free(path, marker=marker, overwrite=overwrite)  # again: it may just have come back
        if not (keep and (temporary / keep).is_file()):
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(exist_ok=True)
        try:
            yield temporary
            old = path.with_name(f".{path.name}.replaced-{os.getpid()}")
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException as error:
            _put_back(path)  # Ctrl-C, too, may come between the two moves
            interrupted = isinstance(error, InterruptionError) or not isinstance(error, Exception)
            if not ((interrupted or after_errors) and keep and (temporary / keep).is_file()):
                shutil.rmtree(temporary, ignore_errors=True)
            raise


def followed(path: Path | str) -> Path:
    """What a link leads to, so that the link stays when its folder is replaced; any other path as it is."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}{PARTIAL}")


def _put_back(path: Path) -> None:
    """Of old folders that killed processes have put aside, put the last one back if `path` is gone; remove the others.

    A kill may come between the two moves by which a new folder takes the place of the old one, or after both.
    """
    aside = sorted(path.parent.glob(f".{glob.escape(path.name)}.replaced-*"), key=lambda old: old.stat().st_mtime)
    if aside and not path.exists():
        os.replace(aside.pop(), path)
    for old in aside:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Refuse a second writer of `path`; the lock ends with the process, however that ends."""
    lock = _unfinished(path).with_name(f"{_unfinished(path).name}.lock")
    with contextlib.ExitStack() as held:
        while True:
            file = held.enter_context(open(lock, "w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another process is writing {path} at this moment. Wait until it has ended, or choose another "
                    "folder."
                ) from None
            # Whoever held it before may have removed the file between our opening and locking it.
            if _is_still(lock, file.fileno()):
                break
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def check_name(path: Path | str) -> None:
    """Raise InputError for a name that is no UTF-8: tables, pictures and reports could not hold it."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The name '{readable(path)}' is no UTF-8 text, so neither tables nor pictures nor reports can hold it. "
            "Rename it; a name in English letters and digits is read everywhere."
        ) from None


def readable(path: Path | str) -> str:
    r"""A name with the bytes that are no UTF-8 as `\xff`, for messages; any other name as it is."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_free(path: Path | str, *, marker: str, overwrite: bool = False) -> None:
    """Raise InputError if `path` exists and may not be replaced (see `whole_folder`), or its name is no text."""
    check_name(path)
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; a folder is written there. Choose another output folder.")
    if not overwrite:
        if _unfinished(path).with_name(f"{_unfinished(path).name}.lock").exists():
            with contextlib.suppress(InputError, OSError), _only_writer(path):
                pass  # a kill behind the last move has left the lock alone
        raise InputError(
            f"The output folder {path} exists already and nothing was changed in it. "
            "Choose another folder, or pass --overwrite to replace it."
        )
    if not (path / marker).exists():
        raise InputError(
            f"--overwrite will not replace {path}: it holds no {marker}, so it was not written by this command. "
            "Choose another folder, or remove it yourself."
        )


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    # Without fsync a crash just after the rename can leave an empty file under the final name.
    with open(path, "rb") as file:
        os.fsync(file.fileno())
