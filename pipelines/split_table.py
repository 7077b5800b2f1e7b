"""Split table: a CSV that says of each image in which split it is.

The other ways to split live in `pipelines.splits`.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.errors import InputError, nearest
from pipelines.parts import SPLITS, Part, is_number
from pipelines.sample import Item

COLUMNS = ("name", "split")
NONE = "none"


def read_table(path: Path | str) -> dict[str, str]:
    """Read a table of splits.

    Args:
        path: A CSV in UTF-8 with a header and at least the columns `name` (of the image) and `split`: train,
            validation, test, or none or nothing for an image that is left out. Empty lines are skipped.

    Returns:
        Name -> "train", "validation", "test" or "" (left out), in the order of the file.

    Raises:
        FileNotFoundError: No such file.
        InputError: Not such a table; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"split.file: there is no file {path}. A CSV with the columns name and split is wanted."
        )
    table: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, name, word in _rows(path):
        where = f"{path}, line {line}"
        if not name:
            raise InputError(f"{where}: the name of the image is missing.")
        if name in lines:
            raise InputError(f"{where}: '{name}' stands in line {lines[name]} already. Keep one of the two.")
        table[name], lines[name] = _split(word, where) or "", line
    if not table:
        raise InputError(f"{path} lists no image: below the header, one line for each image was expected.")
    return table


def by_table(
    items: Sequence[Item], parts: Mapping[str, Part], table: Mapping[str, str] | None
) -> dict[str, str | None]:
    """Split of each item as the table says; the arguments are those of `pipelines.splits.assign`."""
    if table is None:
        raise InputError(
            "split.by is csv, but split.file names no table. Set it to a CSV with the columns name, split."
        )
    for key, part in parts.items():
        if not is_number(part):
            raise InputError(f"split.{key} is {part!r}, but with split.by: csv the table alone decides. Remove it.")
    names = {item.name for item in items}
    unknown = [name for name in table if name not in names]
    missing = sorted(names - set(table))
    if unknown:
        raise InputError(
            f"split.file lists {len(unknown)} of {len(table)} names that no image has: {_some(unknown)}."
            f"{nearest(unknown[0], missing or sorted(names))} Images have names such as {_some(sorted(names), 3)}."
        )
    if missing:
        raise InputError(
            f"split.file does not list {len(missing)} of {len(names)} images: {_some(missing)}. Add a line for each; "
            "none as its split leaves an image out."
        )
    result = {name: _split(table[name], f"split.file, '{name}'") for name in sorted(names)}
    for key in parts:
        if key not in result.values():
            raise InputError(f"split.file puts none of its {len(table)} images into the split '{key}'. Give it some.")
    return result


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, name and split of each line below the header."""
    try:
        # Spreadsheets write a byte order mark.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            name, split = _columns(header, path)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} cells, but the header has {len(header)}. "
                        "Write a comma between cells, and quotes around a name with a comma in it."
                    )
                yield reader.line_num, row[name].strip(), row[split].strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error}. Save the table as CSV in UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a CSV: {error}. Save the table as CSV.") from error


def _columns(header: Sequence[str], path: Path) -> tuple[int, int]:
    """Where the two columns are."""
    for column in COLUMNS:
        if header.count(column) != 1:
            there = f"There are: {', '.join(header)}." if any(header) else "The first line is empty."
            other = next((sign for sign in (";", "\t") if any(sign in cell for cell in header)), None)
            hint = f" Separate columns by commas, not by {'tabs' if other == chr(9) else other}." if other else ""
            raise InputError(
                f"{path}: the header needs one column '{column}', and has {header.count(column)}. {there}{hint}"
                f"{'' if other else nearest(column, header)}"
            )
    return header.index("name"), header.index("split")


def _split(word: str, where: str) -> str | None:
    """The word as a split, None for left out. Raises InputError for another word."""
    if word in SPLITS:
        return word
    if word in ("", NONE):
        return None
    known = (*SPLITS, NONE)
    # "val" is short for validation, though "train" is as near by its letters.
    short = [one for one in known if one.startswith(word.lower())]
    raise InputError(
        f"{where}: '{word}' is no split.{nearest(short[0] if short else word.lower(), known)} "
        f"Known: {', '.join(known)} or nothing."
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
