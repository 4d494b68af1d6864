"""MNIST and Fashion-MNIST: four files of known size and content each."""

from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from medaug.core.errors import DownloadError
from medaug.data.download import http
from medaug.data.download.http import Client, UnreachableError
from medaug.data.download.report import Item, Meter, Plan, Report
from medaug.data.download.settings import DownloadConfig
from medaug.runtime.files import explaining

PUBLISHED = MappingProxyType(
    {
        "mnist/train-images-idx3-ubyte.gz": (
            9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "mnist/train-labels-idx1-ubyte.gz": (
            28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "mnist/t10k-images-idx3-ubyte.gz": (
            1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "mnist/t10k-labels-idx1-ubyte.gz": (
            4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        "fashion-mnist/train-images-idx3-ubyte.gz": (
            26421880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        "fashion-mnist/train-labels-idx1-ubyte.gz": (
            29515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        "fashion-mnist/t10k-images-idx3-ubyte.gz": (
            4422102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        "fashion-mnist/t10k-labels-idx1-ubyte.gz": (
            5148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    }
)
"""Bytes and SHA-256 of the files whose MD5 the authors published."""


class IdxFiles:
    """The four files of ``data``, as published or as the settings say."""

    def __init__(self, data: str, settings: DownloadConfig) -> None:
        self.data, self.settings = data, settings
        self.base = settings.mnist if data == "mnist" else settings.fashion_mnist
        self.names = [
            name.removeprefix(f"{data}/") for name in PUBLISHED if name.startswith(f"{data}/")
        ]

    def wanted(self, name: str) -> str | None:
        """The digest that the file must have."""
        key = f"{self.data}/{name}"
        return self.settings.checksums.get(key, PUBLISHED[key][1])

    def plan(self, client: Client, plan: Plan, way: Path) -> None:
        """Say of each file whether it is there; asks no server."""
        for name in self.names:
            key, path, wanted = f"{self.data}/{name}", plan.root / name, self.wanted(name)
            size = None if key in self.settings.checksums else PUBLISHED[key][0]
            if path.is_file():
                same = wanted is None or http.agrees(path, wanted)
                why = "" if same else "its checksum is not the published one"
                plan.items.append(Item(name, size, "complete" if same else "damaged", why))
            else:
                begun: Literal["partial", "missing"] = (
                    "partial" if (way / name).exists() else "missing"
                )
                plan.items.append(Item(name, size, begun))

    def run(self, client: Client, plan: Plan, way: Path, meter: Meter, report: Report) -> None:
        """Fetch what ``plan`` wants, each file checked before it takes its place."""
        place = 0
        for item in plan.wanted:
            wanted = self.wanted(item.name)
            meter.begin(item.name)
            try:
                client.fetch(
                    f"{self.base}/{item.name}",
                    way / item.name,
                    meter.arrived,
                    partial(http.check, wanted=wanted),
                    known=wanted is not None,
                )
            except UnreachableError:
                raise
            except DownloadError as error:
                report.failed[item.name] = str(error)
                continue
            target = plan.root / item.name
            with explaining(target):
                (way / item.name).replace(target)
            place += item.bytes or 0
            meter.settle(place)
            report.arrived(item)
