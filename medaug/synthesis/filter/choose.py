"""The filter of a run: kept in its folder, built the first time from the slices it learned from."""

from pathlib import Path
from typing import Any

from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError
from medaug.core.text import tell
from medaug.runtime.device import choose_device
from medaug.synthesis.filter.filter import FILE, Filter, open_filter
from medaug.synthesis.filter.settings import FilterConfig, resolve_filter
from medaug.training.run import trained_on


def filter_for_run(
    run: Path,
    kind: str,
    masks: str,
    data: DataConfig,
    config: FilterConfig | None = None,
    *,
    required: bool = False,
    device: str = "auto",
) -> Filter | None:
    """The filter of ``run``, or None for what none is made for or can be had.

    Args:
        run: a run folder, or a weight file, beside which no filter is kept.
        kind: ``ct``, ``mr`` or ``image``, of the run.
        masks: its ``data.masks``.
        data: which slices it learned from.
        config: the thresholds; None takes the defaults.
        required: whether to refuse where there is none, instead of saying so.
        device: where segmenters are trained and compute.

    Raises:
        ConfigError: ``required``, and pictures, masks alone, or no training slices at hand; or a
            filter built otherwise that cannot be built anew.
    """
    reason = ""
    if kind == "image":
        reason = "the filter judges slices of scans, and this run draws pictures"
    elif masks == "alone":
        reason = "the filter judges images, and this run draws masks alone"
    if not reason:
        cache = trained_on(run)
        place = run / FILE
        if cache is not None or place.is_file():
            return open_filter(
                place,
                config,
                cache=cache,
                data=data,
                unlabeled=trained_on(run, "unlabeled"),
                device=choose_device(device),
            )
        reason = f"{run}: the slices it was trained on are not at hand, and the filter needs them"
    if required:
        raise ConfigError(f"{reason}; leave --filter out")
    if kind != "image":
        tell(f"not filtered: {reason}")
    return None


def filter_config(wishes: dict[str, Any]) -> FilterConfig:
    """The thresholds for ``{"filter": {...}}``, as ``--set filter.hu_margin=20`` gives it.

    Raises:
        ConfigError: another section, an unknown key, or a value that is not accepted.
    """
    for section in wishes:
        if section != "filter":
            raise ConfigError(f"config {section} is not known here; known: filter")
    return resolve_filter(wishes.get("filter") or {})
