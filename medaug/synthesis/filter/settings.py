"""Define the settings of the filter of synthetic slices."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from medaug.core.config import _Section, parse_count, validated


class FilterConfig(_Section):
    """Which synthetic CT slices are refused; see ``docs/filter.md``.

    All but the first three may change without building the filter anew.
    """

    segmenter_images: int = Field(3000, ge=1, description="slices each fold's segmenter sees")
    folds: int = Field(3, ge=2, description="parts of the patients, for cross-fitting")
    seed: int = Field(0, ge=0, description="of folds and segmenters")
    tail: float = Field(0.005, ge=0, lt=0.5, description="share of real slices beyond each bound")
    empty: Literal["auto", "refuse", "allow"] = Field(
        "auto", description="masks without a pixel; auto allows them where real ones are so"
    )
    empty_share: float = Field(0.01, ge=0, le=1, description="share of empty real ones for auto")
    noise_above: float | None = Field(1.4, ge=1, description="factor over the real bound")
    noise_below: float | None = Field(None, ge=0, le=1, description="factor of the real bound")
    body_share: float | None = Field(0.98, ge=0, le=1, description="of the mask inside the body")
    hu_margin: float | None = Field(10.0, ge=0, description="HU beyond the real bounds")
    hu_spread: float | None = Field(1.25, ge=1, description="factor over the real spread in a mask")
    area_factor: float | None = Field(1.25, ge=1, description="factor beyond the real bounds")
    components_more: int | None = Field(1, ge=0, description="parts more than the real bound")
    agreement_tail: float = Field(0.01, ge=0, lt=0.5, description="share of real slices below")
    agreement_margin: float | None = Field(0.05, ge=0, le=1, description="Dice below the real one")
    agreement: float = Field(0.0, ge=0, le=1, description="least Dice, whatever real slices show")
    copy_share: float | None = Field(
        0.5, ge=0, le=1, description="of the distance from a real slice to another patient's"
    )
    stack_share: float = Field(0.2, ge=0, le=1, description="of a stack's slices that may fail")

    @field_validator("segmenter_images", mode="before")
    @classmethod
    def _counts(cls, value: Any, info: Any) -> int:
        return parse_count(value, info.field_name)


def resolve_filter(asked: Mapping[str, Any]) -> FilterConfig:
    """The filter's settings from plain values; an unknown key suggests the nearest known.

    Raises:
        ConfigError: an unknown key, or a value that is not accepted.
    """
    return validated(FilterConfig, asked, "filter.")
