"""What a downstream study is asked to be, section ``downstream`` of its config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medaug.core.config import Config, merge, resolve, validated
from medaug.core.errors import ConfigError
from medaug.core.modality import modality_of
from medaug.data.cache.store import SliceCache
from medaug.synthesis.filter.settings import FilterConfig, resolve_filter

FREE = ("n", "subsets", "arms", "hurt", "resamples")
"""Settings that may change between one command and the next in the same folder."""


class DownstreamConfig(BaseModel):
    """The arms, the subsets of patients, and the budget that all arms share."""

    model_config = ConfigDict(extra="forbid")
    n: list[int] = Field([2, 4, 8], min_length=1, description="labelled training patients")
    subsets: int = Field(3, ge=1, description="choices of patients for each n")
    seed: int = Field(0, ge=0, description="of every choice and draw")
    arms: list[str] = Field([], description="by name; all of them where empty")
    trainer: Literal["unet", "nnunet"] = "unet"
    steps: int = Field(700, ge=1, description="of the optimiser, equal in every arm")
    batch: int = Field(8, ge=1, description="slices a step")
    ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="probability that a slice is synthetic, mixed or pseudo-labelled",
    )
    samples: int = Field(600, ge=1, description="synthetic slices in an arm")
    draws: float = Field(4.0, ge=1, description="most draws for each slice kept by the filter")
    variant: Literal["joint", "layout"] = Field(
        "layout", description="whose samples go unfiltered, partly ignored, or alone"
    )
    uncertainty: int = Field(8, ge=2, description="alternatives that vote on ignored pixels")
    ignore_above: str = Field("q75", description="entropy at which a pixel is ignored")
    unlabeled_masks: Literal["joint", "layout"] = "joint"
    unlabeled_patients: int | None = Field(None, ge=1, description="None: all that are left over")
    contrast_strength: float = Field(0.3, ge=0, le=1, description="of contrast randomisation")
    test_slices: Literal["labelled", "all"] = Field(
        "labelled", description="from the first to the last with a label, or all of the scan"
    )
    tolerance_mm: float | None = Field(None, gt=0, description="None: the side of a pixel")
    hurt: float = Field(0.02, ge=0, description="loss of Dice from which a case counts as hurt")
    resamples: int = Field(4000, ge=100, description="of the bootstrap")
    nnunet_slices: int = Field(400, ge=2, description="of an arm that nnU-Net is given")
    nnunet_trainer: str = "nnUNetTrainerNoMirroring"

    @field_validator("n")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if min(value) < 1:
            raise ValueError(f"patients must be at least 1, got {min(value)}")
        return sorted(set(value))


@dataclass(frozen=True)
class StudyConfig:
    """The whole of what defines a study: generators, filter, and the study itself."""

    generator: Config
    filter: FilterConfig
    study: DownstreamConfig

    def dump(self) -> dict[str, Any]:
        """Plain values that ``resolve_study`` maps back to an equal config."""
        return {
            **self.generator.dump(),
            "filter": self.filter.model_dump(mode="json"),
            "downstream": self.study.model_dump(mode="json"),
        }


def resolve_study(cache: SliceCache, *layers: Mapping[str, Any]) -> StudyConfig:
    """One config from layers, over the cache's geometry and a short training of the generators.

    Raises:
        ConfigError: an unknown key, a value that is not accepted, or a cache of pictures.
    """
    if cache.kind != "ct":
        raise ConfigError(f"{cache.path}: a downstream study needs scans, this has {cache.holds}")
    known = cache.settings
    asked: dict[str, Any] = {
        "data": {
            "name": cache.source,
            "size": known.size,
            "fov_mm": known.fov_mm,
            "center": known.center,
            "augment": {"elastic": 0.02},
            "window_hu": list(modality_of(cache.modality).window),
        },
        "train": {"images": 60_000, "batch": 32, "ema_half_life": 2000, "snapshot_every": 20_000},
    }
    for layer in layers:
        asked = merge(asked, layer)
    filtering = resolve_filter(asked.pop("filter", None) or {})
    study = validated(DownstreamConfig, asked.pop("downstream", None) or {}, "downstream.")
    config = resolve(asked)
    for name in ("size", "fov_mm", "center"):
        if getattr(config.data, name) != getattr(known, name):
            raise ConfigError(
                f"config data.{name}: {getattr(config.data, name)} asked for, and {cache.path} "
                f"has {getattr(known, name)}"
            )
    return StudyConfig(config, filtering, study)
