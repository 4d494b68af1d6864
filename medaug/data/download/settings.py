"""Where data comes from, and how patiently; every address is a setting."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medaug.core.config import validated

_ADDRESS = re.compile(r"https?://[^\s/?#]+[^\s?#]*")
_HEX = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")


class DownloadConfig(BaseModel):
    """The section ``download`` of a config, or ``--set download.KEY=VALUE``."""

    model_config = ConfigDict(extra="forbid")
    pancreas: str = Field(
        "https://nbia.cancerimagingarchive.net/nbia-api/services/v4",
        description="of the REST service: it answers getSeries and getImage",
    )
    pancreas_labels: str = Field(
        "https://www.cancerimagingarchive.net/wp-content/uploads/"
        "TCIA_pancreas_labels-02-05-2017-1.zip",
        description="of the label archive",
    )
    mnist: str = Field(
        "https://ossci-datasets.s3.amazonaws.com/mnist", description="of a folder of idx files"
    )
    fashion_mnist: str = Field(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        description="of a folder of idx files",
    )
    checksums: dict[str, str | None] = Field(
        default_factory=dict,
        description="SHA-256 or MD5 by name (pancreas_labels, mnist/train-images-idx3-ubyte.gz) "
        "in place of the published one; null: none is checked",
    )
    timeout_s: float = Field(60.0, gt=0, description="silence that counts as a lost connection")
    least_bytes_s: float = Field(
        1000.0, ge=0, description="slower than this over timeout_s counts as lost too"
    )
    attempts: int = Field(6, ge=1, description="in a row that bring nothing new")
    pause_s: float = Field(1.0, ge=0, description="before the second attempt; then doubled")

    @model_validator(mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """``fashion-mnist``, as the data is called, is the key ``fashion_mnist``."""
        if not isinstance(value, Mapping):
            return value
        return {str(key).replace("-", "_"): content for key, content in value.items()}

    @field_validator("pancreas", "pancreas_labels", "mnist", "fashion_mnist")
    @classmethod
    def _address(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError(f"an address such as https://host/path is wanted, got {value!r}")
        return value.rstrip("/")

    @field_validator("checksums")
    @classmethod
    def _hex(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        for name, digest in value.items():
            if digest is not None and not _HEX.fullmatch(digest.lower()):
                raise ValueError(f"{name}: 32 (MD5) or 64 (SHA-256) hex digits, got {digest!r}")
        return {name: digest and digest.lower() for name, digest in value.items()}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    download: DownloadConfig = Field(default_factory=lambda: DownloadConfig.model_validate({}))


def resolve_download(asked: Mapping[str, Any]) -> DownloadConfig:
    """The settings from plain values, sections included; an unknown key suggests the nearest.

    Raises:
        ConfigError: an unknown key, or a value that is not accepted.
    """
    return validated(_File, asked, "").download
