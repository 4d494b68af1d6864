"""One file a model; ``build`` makes one from its config and the data's shape."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from medaug.errors import ConfigError
from medaug.models.base import Model
from medaug.registry import model
from medaug.tensors import Shape


def build(name: str, arguments: Mapping[str, Any], shape: Shape) -> Model:
    """The model called ``name``; the argument ``form`` chooses among its forms, if it has several.

    Raises:
        ConfigError: no such model, an argument it does not take, or a value it refuses.
    """
    arguments = dict(arguments)
    form = arguments.pop("form", None)
    maker = model(f"{name}.{form}" if form else name).load()
    known = [key for key in inspect.signature(maker).parameters if key != "shape"]
    for key in arguments:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean model.{near[0]}" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"config model.{key} is not known to {name}; {hint}")
    made: Model = maker(shape, **arguments)
    return made
