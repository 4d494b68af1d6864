"""Pancreas-CT: 80 scans from NBIA, one zip file each, and one archive of labels.

ROOT/PANCREAS_0001/<SeriesInstanceUID>/1-001.dcm
ROOT/TCIA_pancreas_labels-02-05-2017/label0001.nii.gz
"""

import re
import shutil
from collections import defaultdict
from functools import partial
from pathlib import Path

from medaug.core.errors import DataError, DownloadError
from medaug.data.download import http, nbia
from medaug.data.download.archive import unpack
from medaug.data.download.http import Client, SpoiledError, UnreachableError
from medaug.data.download.report import Item, Meter, Plan, Report
from medaug.data.download.settings import DownloadConfig
from medaug.data.formats.volumes import nifti_header
from medaug.data.sources.pancreas import PancreasCT
from medaug.runtime.files import explaining

COLLECTION = "Pancreas-CT"
SCANS = 80
LABELS = "TCIA_pancreas_labels-02-05-2017"
LABELS_SHA256 = "cf8a553c37c80e3840ce7392987b308f7a98cd5f50019511b2ac0f3a54b0934b"
_PATIENT = re.compile(r"PANCREAS_\d{4}")
_LABEL = re.compile(r"label(\d{4})\.nii(?:\.gz)?")
_SLICE = re.compile(r"[\w .-]+\.dcm", re.IGNORECASE)
_SLICE_BYTES = 2**23
_LABEL_FILES, _LABEL_BYTES = 1000, 2**33
_EXTRAS = 16
"""Files beside the slices in an archive: LICENSE, checksums."""


class Pancreas:
    """The collection, without the two scans it has withdrawn."""

    def __init__(self, data: str, settings: DownloadConfig) -> None:
        self.settings = settings
        self._series: dict[str, nbia.Series] = {}
        self._held: dict[str, list[nbia.Held]] = {}

    @property
    def labels_digest(self) -> str | None:
        """The digest that the label archive must have."""
        return self.settings.checksums.get("pancreas_labels", LABELS_SHA256)

    def plan(self, client: Client, plan: Plan, way: Path) -> None:
        """Compare what the server lists with what is below the root.

        Raises:
            DownloadError: the server cannot be asked.
        """
        found: dict[str, list[nbia.Held]] = defaultdict(list)
        if plan.root.is_dir():
            for uid, place in nbia.held(plan.root):
                found[uid].append(place)
        withdrawn = PancreasCT.duplicates
        for series in nbia.listed(client, self.settings.pancreas, COLLECTION, _PATIENT):
            if series.patient in withdrawn:
                plan.skipped[series.patient] = withdrawn[series.patient]
                continue
            name = series.patient
            if name in self._series:
                name = f"{series.patient} {series.uid}"
                plan.notes.append(f"the server lists two CT series of {series.patient}")
            self._series[name] = series
            self._held[name] = found[series.uid]
            plan.items.append(_item(name, series, found[series.uid], way))
        if len(self._series) != SCANS:
            plan.notes.append(
                f"the server lists {len(self._series)} scans; the collection has {SCANS}"
            )
        plan.items.append(self._labels_item(client, plan.root, way))

    def run(self, client: Client, plan: Plan, way: Path, meter: Meter, report: Report) -> None:
        """Fetch what ``plan`` wants, one scan after the other."""
        place = 0
        for item in plan.wanted:
            meter.begin(item.name)
            try:
                if item.name == LABELS:
                    self._fetch_labels(client, plan.root, way, meter)
                else:
                    self._fetch_series(client, item.name, plan.root, way, meter)
            except UnreachableError:
                raise
            except DownloadError as error:
                report.failed[item.name] = str(error)
                continue
            place += item.bytes or 0
            meter.settle(place)
            report.arrived(item)

    def _fetch_series(self, client: Client, name: str, root: Path, way: Path, meter: Meter) -> None:
        series = self._series[name]
        packed, unpacked = way / f"{series.uid}.zip", way / series.uid
        client.fetch(
            nbia.image_url(self.settings.pancreas, series),
            packed,
            meter.arrived,
            partial(_unpack_series, folder=unpacked, series=series),
            known=False,
        )
        nbia.install(unpacked, root / series.patient / series.uid, self._held[name])
        _forget(packed)

    def _labels_item(self, client: Client, root: Path, way: Path) -> Item:
        folder = root / LABELS
        there = {path.name for path in folder.glob("label*.nii*")} if folder.is_dir() else set()
        lacking = [
            series.patient
            for series in self._series.values()
            if not there & {f"label{series.patient[-4:]}.nii{end}" for end in ("", ".gz")}
        ]
        if not lacking:
            return Item(LABELS, None, "complete")
        try:
            size = client.size(self.settings.pancreas_labels)
        except UnreachableError:
            raise
        except DownloadError:
            size = None
        if there:
            return Item(LABELS, size, "damaged", f"no label of {', '.join(lacking[:3])}")
        begun = (way / f"{LABELS}.zip").exists()
        return Item(LABELS, size, "partial" if begun else "missing")

    def _fetch_labels(self, client: Client, root: Path, way: Path, meter: Meter) -> None:
        packed, unpacked = way / f"{LABELS}.zip", way / LABELS
        client.fetch(
            self.settings.pancreas_labels,
            packed,
            meter.arrived,
            partial(_unpack_labels, folder=unpacked, wanted=self.labels_digest),
            known=self.labels_digest is not None,
        )
        target = root / LABELS
        with explaining(target):
            if target.exists():
                for file in sorted(unpacked.iterdir()):
                    file.replace(target / file.name)
            else:
                unpacked.rename(target)
        _forget(packed)


def _item(name: str, series: nbia.Series, places: list[nbia.Held], way: Path) -> Item:
    faults = [nbia.fault(place, series) for place in places]
    if None in faults:
        return Item(name, series.bytes, "complete")
    if faults:
        return Item(name, series.bytes, "damaged", str(faults[0]))
    begun = (way / f"{series.uid}.zip").exists()
    return Item(name, series.bytes, "partial" if begun else "missing")


def _unpack_series(packed: Path, folder: Path, series: nbia.Series) -> None:
    """Unpack one series and count it.

    Raises:
        SpoiledError: not the whole of the series.
    """
    with explaining(folder):
        shutil.rmtree(folder, ignore_errors=True)
    unpack(
        packed,
        folder,
        lambda name: name == "LICENSE" or _SLICE.fullmatch(name) is not None,
        series.images + _EXTRAS,
        (series.images + _EXTRAS) * _SLICE_BYTES,
    )
    found = [place for uid, place in nbia.held(folder) if uid == series.uid]
    wrong = nbia.fault(found[0], series) if found else f"0 of {series.images} images"
    if not wrong and found[0].others:
        wrong = f"{found[0].others} images of another series"
    if wrong:
        raise SpoiledError(f"the server sends {wrong} for {series.patient}")


def _unpack_labels(packed: Path, folder: Path, wanted: str | None) -> None:
    """Unpack the labels of the scans that are not withdrawn.

    Raises:
        SpoiledError: not what was published, or none of its files is a label.
    """
    http.check(packed, wanted)
    withdrawn = {name[-4:] for name in PancreasCT.duplicates}

    def label(name: str) -> bool:
        match = _LABEL.fullmatch(name)
        return match is not None and match[1] not in withdrawn

    with explaining(folder):
        shutil.rmtree(folder, ignore_errors=True)
    files = unpack(packed, folder, label, _LABEL_FILES, _LABEL_BYTES)
    if not files:
        raise SpoiledError("the archive holds no label0001.nii.gz and the like")
    for file in files:
        try:
            nifti_header(file)
        except DataError as error:
            raise SpoiledError(f"the archive holds a damaged label ({error})") from error


def _forget(packed: Path) -> None:
    packed.unlink(missing_ok=True)
    packed.with_name(packed.name + ".json").unlink(missing_ok=True)
