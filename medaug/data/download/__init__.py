"""Data sets fetched whole: their licence accepted, resumed after a kill, checked, repaired.

Nothing else in medaug opens a connection.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from medaug.core.errors import OutputError
from medaug.data.download.http import Client
from medaug.data.download.idx import IdxFiles
from medaug.data.download.licences import accept, accepted, licence, refusal
from medaug.data.download.pancreas import Pancreas
from medaug.data.download.report import MEGABYTE, Meter, Plan, Report, size_text
from medaug.data.download.settings import DownloadConfig, resolve_download
from medaug.runtime.files import exclusive, explaining
from medaug.runtime.progress import progress

__all__ = ["DownloadConfig", "Plan", "Report", "download", "planned", "resolve_download"]

WAY = ".download"
"""The folder in the root for things on their way; hidden, so that no source looks into it."""


class DataSet(Protocol):
    """What can be fetched."""

    def plan(self, client: Client, plan: Plan, way: Path) -> None: ...

    def run(self, client: Client, plan: Plan, way: Path, meter: Meter, report: Report) -> None: ...


def download(
    data: str,
    root: Path,
    accepts: bool = False,
    settings: Mapping[str, Any] | DownloadConfig | None = None,
) -> Report:
    """Fetch what is missing of a data set into ``root``, and repair what is damaged.

    Called again after a kill, it goes on where it stopped; the folder comes out the same.

    Args:
        data: ``pancreas``, ``mnist`` or ``fashion-mnist``.
        root: the folder, made where needed.
        accepts: the licence, unless that was done before for this folder.
        settings: the section ``download`` of a config.

    Raises:
        ConfigError: no such data set, a setting that is not accepted, or the licence is not.
        DownloadError: a server that cannot be reached, or lists nothing.
        OutputError: the disk is full or not ours, or another process fetches into ``root``.
    """
    settings, source = _open(data, settings)
    if not accepts and not accepted(data, root):
        raise refusal(data)
    started = time.monotonic()
    with exclusive(root):
        accept(data, root)
        way = root / WAY
        with explaining(way):
            way.mkdir(exist_ok=True)
        client = Client(settings)
        plan = _plan(data, root, source, client)
        report = Report(data, root, skipped=plan.skipped, notes=plan.notes)
        report.kept = [item.name for item in plan.items if item.state == "complete"]
        _check_room(plan)
        with progress(f"download {data}", plan.bytes // MEGABYTE, "MB") as bar:
            meter = Meter(bar)
            source.run(client, plan, way, meter, report)
        report.bytes = meter.total
        if not report.failed:
            shutil.rmtree(way)
    report.seconds = time.monotonic() - started
    return report


def planned(
    data: str, root: Path, settings: Mapping[str, Any] | DownloadConfig | None = None
) -> Plan:
    """What `download` would fetch, nothing written; for Pancreas-CT the server is asked.

    Raises:
        ConfigError, DownloadError: see `download`.
    """
    settings, source = _open(data, settings)
    return _plan(data, root, source, Client(settings))


def _open(
    data: str, settings: Mapping[str, Any] | DownloadConfig | None
) -> tuple[DownloadConfig, DataSet]:
    licence(data)
    if not isinstance(settings, DownloadConfig):
        settings = resolve_download({"download": dict(settings or {})})
    source: DataSet
    if data == "pancreas":
        source = Pancreas(data, settings)
    else:
        source = IdxFiles(data, settings)
    return settings, source


def _plan(data: str, root: Path, source: DataSet, client: Client) -> Plan:
    plan = Plan(data, root, licence(data).short, accepted(data, root))
    source.plan(client, plan, root / WAY)
    return plan


def _check_room(plan: Plan) -> None:
    """Raise OutputError where the disk cannot take what is wanted."""
    free = shutil.disk_usage(plan.root).free
    if plan.bytes > free:
        raise OutputError(
            f"{plan.root}: {size_text(plan.bytes)} are to be fetched, and the disk has "
            f"{size_text(free)} left; free some or choose another --root"
        )
