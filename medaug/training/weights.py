"""Load the weights of a file into a model: as they are, or as the start of another run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medaug.core.batch import Shape
from medaug.core.config import ModelConfig
from medaug.core.errors import MedaugError, RunError, WeightsError
from medaug.models import build
from medaug.models.base import Model
from medaug.training.checkpoint import read_weights


def load_model(file: Path) -> tuple[Model, dict[str, Any], str]:
    """Return the model in a weight file, the header of the file, and its checksum.

    Raises:
        WeightsError: no such file, damaged, or not of a model that this version knows.
    """
    tensors, header, fingerprint = read_weights(file)
    try:
        settings = ModelConfig.model_validate(header["config"]["model"])
        shape = Shape(**{"classes": len(header["classes"]), **header["shape"]})
        with torch.device("meta"):  # sizes alone: a header may announce terabytes
            announced = build(settings.name, settings.arguments, shape)
        announced.drop_discriminators()
        _check_fit(file, announced, tensors)
        model = build(settings.name, settings.arguments, shape)
        model.drop_discriminators()
    except MedaugError:
        raise
    except Exception as error:  # a malformed header can make a network raise anything
        raise WeightsError(f"{file}: its header describes no model ({error})") from error
    model.load_state_dict(tensors)
    return model, header, fingerprint


def start_from(model: Model, path: Path) -> None:
    """Load the weights in ``path`` into ``model``; networks that are not there keep their own.

    Raises:
        RunError: the weights are of another model or shape.
    """
    tensors, _, _ = read_weights(path)
    mine: dict[str, Tensor] = model.state_dict()
    for name, value in tensors.items():
        if name not in mine or mine[name].shape != value.shape:
            raise RunError(
                f"{path}: holds weights of another model or size ({name} does not fit); "
                "start from weights made by the same --model, preset and --size"
            )
    model.load_state_dict({**mine, **tensors})


def _check_fit(file: Path, announced: Model, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of the model that the header describes.

    Args:
        file: for the message.
        announced: that model, without memory for its weights.
        tensors: of the file.

    Raises:
        WeightsError: another name or shape.
    """
    wanted = {name: value.shape for name, value in announced.state_dict().items()}
    if wanted != {name: value.shape for name, value in tensors.items()}:
        raise WeightsError(
            f"{file}: its weights do not fit the networks of this medaug; "
            "use the version that wrote it, or train again"
        )
