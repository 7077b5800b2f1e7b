"""Parts: what `split.train`, `split.validation` and `split.test` may say: fractions, or names of sequences.

Ranges of frames are read in `pipelines.blocks`; which image goes where is decided in `pipelines.splits`.
"""

from collections.abc import Mapping, Sequence

from pipelines.errors import InputError

SPLITS = ("train", "validation", "test")

# A fraction; or names of sequences, or ranges of frames, one or a list of them.
Part = float | int | str | Sequence[int | str]


def fractions(parts: Mapping[str, Part], by: str) -> dict[str, float] | None:
    """The parts if they are fractions, None if they are names or ranges.

    Raises:
        InputError: Some are fractions and some are not, one is not above 0, or together they are more than 1.
    """
    numbers = {name: not isinstance(part, bool) and isinstance(part, float) for name, part in parts.items()}
    if by == "image":
        # A whole number can mean nothing else here.
        numbers = {name: number or type(parts[name]) is int for name, number in numbers.items()}
    if not any(numbers.values()) and by != "image":
        return None
    if not all(numbers.values()):
        odd = next(name for name, number in numbers.items() if not number)
        other = {
            "image": "",
            "sequence": " (or all of them names of sequences)",
            "block": " (or all of them ranges such as 0-139)",
        }[by]
        raise InputError(
            f"split.{odd} is {parts[odd]!r}; with split.by: {by}, every part must be a fraction such as 0.2{other}."
        )
    result = {name: float(part) for name, part in parts.items() if isinstance(part, float | int)}
    for name, fraction in result.items():
        _check_fraction(name, fraction)
    if sum(result.values()) > 1 + 1e-9:
        raise InputError(
            f"{' + '.join(f'split.{name}' for name in parts)} = {sum(result.values()):.4g}; at most 1 was expected."
        )
    return result


def fraction(name: str, part: Part, by: str) -> float:
    """The part as one fraction, above 0 and at most 1; `name` and `by` are for the message."""
    if not is_number(part):
        raise InputError(f"split.{name} is {part!r}; with split.by: {by}, a fraction such as 0.2 was expected.")
    value = float(part)  # type: ignore[arg-type]
    _check_fraction(name, value)
    return value


def is_number(part: Part) -> bool:
    """Whether the part is one number, as every fraction is."""
    return isinstance(part, float | int) and not isinstance(part, bool)


def listed(part: Part) -> list[int | str | float]:
    """The names or ranges of a part, of which there may be one without a list."""
    return [part] if isinstance(part, str | int | float) else list(part)


def named(part: Part, sources: Sequence[str], name: str) -> list[str]:
    """The sources that a part names; "01" and 1 are the same. Raises InputError for one that is not there."""
    return [_source(wanted, sources, name) for wanted in listed(part)]


def _check_fraction(name: str, fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise InputError(
            f"split.{name} is {fraction:g}: the split would be empty or more than everything. A fraction above 0 "
            "and at most 1 was expected."
        )


def _source(wanted: object, sources: Sequence[str], part: str) -> str:
    # YAML reads an unquoted 01 as the number 1.
    text = str(wanted)
    for source in sources:
        if source == text or (source.isdigit() and text.isdigit() and int(source) == int(text)):
            return source
    raise InputError(f"split.{part} names the sequence {wanted!r}. There are: {', '.join(sources)}.")
