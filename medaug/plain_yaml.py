"""YAML of plain values, from whoever wrote it: no Python objects, no aliases that explode."""

import re
from typing import Any

import yaml

MOST_VALUES = 100_000
"""In a text, aliases unfolded."""


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written as 3e-4, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The plain values in YAML text; tags that would make Python objects are refused.

    Raises:
        YAMLError: not YAML, or with such a tag.
        ValueError: its aliases unfold to more than `MOST_VALUES`, or it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply, or in itself") from error
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values ``node`` holds once every alias stands for what it names."""
    if id(node) not in known:
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in below)
    return known[id(node)]
