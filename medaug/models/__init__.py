"""One file a model; ``build`` makes one from its config and the data's shape."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.core.registry import model
from medaug.models.base import Model


def build(name: str, arguments: Mapping[str, Any], shape: Shape) -> Model:
    """The model called ``name``; the argument ``form`` chooses among its forms, if it has several.

    Raises:
        ConfigError: no such model, an argument it does not take, or a value it refuses.
    """
    arguments = dict(arguments)
    form = arguments.pop("form", None)
    maker = model(f"{name}.{form}" if form else name).load()
    declared = inspect.signature(maker, eval_str=True).parameters
    known = [key for key in declared if key != "shape"]
    for key, value in arguments.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean model.{near[0]}" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"config model.{key} is not known to {name}; {hint}")
        arguments[key] = _as_declared(value, declared[key].annotation, key)
    made: Model = maker(shape, **arguments)
    return made


def _as_declared(value: Any, kind: Any, key: str) -> Any:
    if kind is inspect.Parameter.empty:
        return value
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise ConfigError(f"config model.{key}: {told}, got {value!r}") from error
