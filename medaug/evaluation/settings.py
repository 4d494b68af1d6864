"""Define the settings of a report: what is measured, and the bounds that figures are held to."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from medaug.core.config import _Section, validated


class BoundConfig(_Section):
    """A bound on a figure of the report; what is not set stays as it is by default."""

    least: float | None = None
    most: float | None = None
    of: Literal["value", "ratio", "difference"] | None = None


class EvaluateConfig(_Section):
    """What a report is measured on, and the bounds on its figures."""

    slices: int = Field(5000, ge=10, description="slices of each kind that are measured, at most")
    window_hu: tuple[float, float] | None = Field(
        None, description="(low, high); None: that of the training"
    )
    labels: list[str] | None = Field(
        None, description="names of those that count; None: all that both sides have"
    )
    min_label_pixels: int | None = Field(
        None,
        ge=0,
        description="label pixels a real slice must show; None: as in training; 0: take all",
    )
    extractors: list[Path] = Field(
        default_factory=list, description="TorchScript files of further feature spaces"
    )
    bounds: dict[str, BoundConfig | None] = Field(
        default_factory=dict, description="by name of the figure; null removes the bound"
    )

    @field_validator("bounds", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """``fidelity.frechet.texture`` may come as one key or as nested sections."""
        return dict(_bounds(value)) if isinstance(value, Mapping) else value

    @field_validator("window_hu")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"the lower bound must be below the upper one, got {list(value)}")
        return value


def _bounds(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and not value.keys() & BoundConfig.model_fields.keys():
            yield from _bounds(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def resolve_evaluate(values: Mapping[str, Any]) -> EvaluateConfig:
    """Check a report's settings; an unknown key suggests the nearest known.

    Raises:
        ConfigError: an unknown key, or a value that is not accepted.
    """
    return validated(EvaluateConfig, values, "evaluate.")
