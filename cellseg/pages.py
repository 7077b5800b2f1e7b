"""Pages: numbers, pictures and a movie as one HTML file that needs no network.

What stands on them is chosen in `cellseg.sequence_report` and `cellseg.volume_report`; the report of a run has a page
of its own, `cellseg.report`. The page itself is `templates/page.html.j2`.
"""

import base64
import datetime
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg import __version__, templating
from pipelines.files import whole_file

NAME = "report.html"
EMBEDDED = 15e6  # bytes; a larger movie lies beside the page
TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Tile:
    """A number that stands large at the top."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture or movie.

    Args:
        source: Of an `img` or `video` element: see `embedded`.
        caption: Below it.
        is_movie: Whether it is a video.
        wide: Stretch it to the width of the page.
    """

    source: str
    caption: str
    is_movie: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text below the names of their columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of the page, in this order: texts, facts (name, value), figures, table, note."""

    title: str
    texts: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    table: Table | None = None
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What stands on a page.

    Args:
        title: Of the page.
        subtitle: One sentence below it.
        tiles: The numbers that a reader looks for first.
        sections: The rest.
        notes: What the user was told while it was made.
        files: (name, what it holds) of the folder.
        command: That made it.
        beside: Names of files that the page shows and does not hold.
    """

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    files: Sequence[tuple[str, str]] = ()
    command: str = ""
    beside: Sequence[str] = ()

    @property
    def alone(self) -> str:
        """Whether the file can be sent alone."""
        if self.beside:
            return f"Send it together with {', '.join(self.beside)}, which it shows; all else is inside."
        return "This file stands alone: pictures are inside, nothing is loaded from elsewhere."


def write_page(path: Path | str, page: Page) -> None:
    """Write a page as HTML; the file appears whole or not at all. What it holds cannot become markup."""
    text = templating.environment().get_template("page.html.j2").render(page=page, version=__version__)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def embedded(content: bytes | Path) -> str:
    """The source of a picture (PNG), or of a picture or movie file, that stands in the page itself."""
    kind = TYPES[".png"] if isinstance(content, bytes) else TYPES[content.suffix]
    data = content if isinstance(content, bytes) else content.read_bytes()
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def today() -> str:
    """The date and time of now."""
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M")


def command() -> str:
    """The command that is running, as it could be typed again; "" where it is none of ours."""
    name = Path(sys.argv[0]).name
    return shlex.join([name, *sys.argv[1:]]) if name.startswith("cellseg-") else ""
