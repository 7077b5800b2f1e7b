"""YAML text: read as data alone, whoever wrote it, and within bounds.

What the keys mean is checked in `cellseg.experiment`.
"""

import re
from typing import Any

import yaml

# An experiment has some thousand characters and a hundred values; aliases of aliases make billions out of a few lines.
# PyYAML takes up to 10 s for a million characters.
LONGEST, MOST_VALUES, DEEPEST = 2**18, 100_000, 50


def load(text: str) -> Any:
    """The content of a YAML document, of dicts with names as keys, lists, texts, numbers, dates, booleans and None.

    `1e-4` is a number, as in YAML 1.2 and Python, and a repeated key is an error.

    Raises:
        yaml.YAMLError: No YAML, a tag that stands for an object of Python, or a document that is hardly an experiment.
    """
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it is {len(text)} characters long; an experiment has some thousand")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, [], {})
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep") from None
    # What PyYAML's constructors make of a date of month 13, a number of 5000 digits or an empty one.
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise yaml.YAMLError(f"a value cannot be read ({type(error).__name__}: {error})") from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no name of a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _count(node: yaml.Node, above: list[int], known: dict[int, int]) -> int:
    """Number of values that a node stands for, with those of its aliases."""
    if id(node) in above:
        raise yaml.YAMLError("an alias stands for what it lies in")
    if len(above) > DEEPEST:
        raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
    if id(node) not in known:
        inside = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        inside = inside if isinstance(node, yaml.CollectionNode) else []
        known[id(node)] = 1 + sum(_count(one, [*above, id(node)], known) for one in inside)
    if known[id(node)] > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases unfold to more than {MOST_VALUES} values")
    return known[id(node)]
