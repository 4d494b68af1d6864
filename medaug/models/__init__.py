"""One file a model; ``build`` makes one from its config and the data's shape."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.core.registry import model
from medaug.models.base import Model
from medaug.models.priors import PriorOptions


def build(name: str, arguments: Mapping[str, Any], shape: Shape) -> Model:
    """Make the model called ``name``.

    Args:
        name: as ``medaug models`` lists it, or of a plug-in.
        arguments: its own, by name, as the section ``model`` of a config gives them; of ``prior``
            a name or a mapping, whose missing keys keep the model's defaults.
        shape: channels, size and conditions of the data.

    Raises:
        ConfigError: no such model, an argument it does not take, or a value it refuses.
    """
    maker = model(name).load()
    declared = inspect.signature(maker, eval_str=True).parameters
    known = [key for key in declared if key != "shape"]
    given = {}
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(f"config model.{key} is not known to {name}; {_near(key, known)}")
        if isinstance(declared[key].default, PriorOptions):
            value = _prior(value, declared[key].default)
        given[key] = _as_declared(value, declared[key].annotation, key)
    made: Model = maker(shape, **given)
    return made


def _prior(value: Any, default: PriorOptions) -> Any:
    """A prior's name or some of its options as all of them."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        return value
    known = asdict(default)
    for key in value:
        if key not in known:
            raise ConfigError(f"config model.prior.{key} is not known; {_near(key, list(known))}")
    return {**known, **value}


def _near(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean model.{near[0]}" if near else f"known: {', '.join(known)}"


def _as_declared(value: Any, kind: Any, key: str) -> Any:
    if kind is inspect.Parameter.empty:
        return value
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (key, *first["loc"]) if part != "PriorOptions")
        raise ConfigError(
            f"config model.{where}: {first['msg']}, got {first['input']!r}"
        ) from error
