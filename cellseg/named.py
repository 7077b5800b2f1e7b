"""Named sections: `{name: dice, squared: true}` in the YAML is a call of that entry of a room's table.

The signature is the schema; the sections themselves are those of `cellseg.experiment`.
"""

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pydantic

from pipelines.errors import InputError, nearest
from pipelines.weight_maps import WEIGHT_MAPS

Named = dict[str, Any]


def build(table: Mapping[str, Callable], named: Named, *, key: str, given: Mapping[str, Any] | None = None) -> Any:
    """Call the entry of a room's table that a YAML section names: `{name: dice, squared: true}`.

    Args:
        table: Name to class or function; its keyword-only arguments are the schema.
        named: The section.
        key: The section's YAML key, for messages.
        given: Arguments that the program adds by name; the YAML may not set them.

    Raises:
        InputError: unknown name or key (the message names the nearest known one), or a value of the wrong type.
    """
    given = dict(given or {})
    return table[_name(table, named, key)](**given, **check_options(table, named, key=key, given=tuple(given)))


def check_options(
    table: Mapping[str, Callable], named: Named, *, key: str, given: Sequence[str] = ()
) -> dict[str, Any]:
    """The checked keywords of a section that names an entry of a room's table; see `build`."""
    name = _name(table, named, key)
    function = table[name]
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    allowed = [n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and n not in given]
    checked: dict[str, Any] = {}
    for option, value in named.items():
        if option == "name":
            continue
        if option not in allowed:
            raise InputError(
                f"{key}.{option}: '{name}' takes no such key.{nearest(option, allowed)} "
                f"It takes: {', '.join(allowed) or 'none'}."
            )
        try:
            checked[option] = pydantic.TypeAdapter(hints.get(option, Any)).validate_python(value)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            close = nearest(str(value), re.findall(r"'([^']+)'", problem["msg"]))
            raise InputError(f"{key}.{option}: {problem['msg']}, got {value!r}.{close}") from error
    return checked


def weight_map_function(section: Named | None) -> Callable[[np.ndarray], np.ndarray] | None:
    """labels -> weight map, as an experiment's `weight_map` section says; None without one."""
    if section is None:
        return None
    options = check_options(WEIGHT_MAPS, section, key="weight_map")
    return functools.partial(WEIGHT_MAPS[section["name"]], **options)


def _name(table: Mapping[str, Callable], named: Named, key: str) -> str:
    name = named.get("name")
    if name not in table:
        raise InputError(f"{key}.name: '{name}' is not known.{nearest(str(name), table)} Known: {', '.join(table)}.")
    return str(name)
