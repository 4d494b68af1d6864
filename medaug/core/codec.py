"""Map stored values to what networks see and back; the map is saved inside every weight file.

Pictures have one channel where they are grey and three where they are RGB.  Of CT and MR, channel 0
is the intensity; with ``masks`` joint one channel follows for each label, -1 outside and +1 inside,
so that a value v there is the probability (v + 1) / 2.  With ``masks`` layout the labels, and the
tissues if set, are planes of 0 and 1 that the model gets as a condition; with ``masks`` alone those
planes, as -1 and +1, are the only channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from medaug.core.errors import WeightsError


class Codec(Protocol):
    """Map stored values to network values in [-1, 1] and back."""

    @property
    def channels(self) -> int:
        """The number of channels of a network's images."""

    @property
    def images(self) -> int:
        """How many of them, the first, are intensities."""

    def encode(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Map stored values (b, h, w) and label ids (b, h, w) to (b, channels, h, w)."""

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (b, channels, h, w) to stored values and label ids; None where it has no masks."""

    def to_dict(self) -> dict[str, Any]:
        """Describe the codec by JSON values, from which ``from_dict`` makes an equal one."""


@dataclass(frozen=True)
class CTCodec:
    """Map intensities through a window, and label maps to one channel a label.

    Attributes:
        window_hu: the HU that become -1 and +1; values beyond are clipped.  Of MR, thousandths of
            the scan's range.
        labels: name to id of the labels, in channel order.
        masks: ``joint``: labels are channels next to the intensity; ``layout``: planes of the
            condition; ``alone``: the only channels; ``none``: left out.
        tissues: name to id of the tissues that follow the labels in a layout.
        modality: ``CT`` or ``MR``.
    """

    window_hu: tuple[float, float]
    labels: dict[str, int]
    masks: str = "joint"
    tissues: dict[str, int] = field(default_factory=dict)
    modality: str = "CT"

    @property
    def images(self) -> int:
        """How many channels are intensities: 1, or 0 with ``masks`` alone."""
        return 0 if self.masks == "alone" else 1

    @property
    def mask_labels(self) -> dict[str, int]:
        """Name to id of what has a mask channel, in channel order."""
        if self.masks == "alone":
            return {**self.labels, **self.tissues}
        return self.labels if self.masks == "joint" else {}

    @property
    def layout_labels(self) -> dict[str, int]:
        """Name to id of what has a plane of the layout, in their order."""
        return {**self.labels, **self.tissues} if self.masks == "layout" else {}

    @property
    def channels(self) -> int:
        return self.images + len(self.mask_labels)

    def encode(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Map HU (b, h, w) and label ids (b, h, w) to (b, channels, h, w) in [-1, 1]."""
        low, high = self.window_hu
        x = torch.empty(len(image), self.channels, *image.shape[1:], device=image.device)
        if self.images:
            x[:, 0] = image
            x[:, 0].sub_(low).mul_(2 / (high - low)).sub_(1).clamp_(-1, 1)
        if self.mask_labels and label is None:
            raise ValueError("a label map is needed: this codec has mask channels")
        for channel, number in enumerate(self.mask_labels.values(), self.images):
            x[:, channel] = label == number
            x[:, channel].mul_(2).sub_(1)
        return x

    def layout(self, ids: Tensor) -> Tensor:
        """Map layout maps (b, h, w) of ids to planes (b, l, h, w) of 0 and 1."""
        return torch.stack([ids == number for number in self.layout_labels.values()], 1).float()

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (b, channels, h, w) to HU int16 (b, h, w) and label ids uint8, None without masks.

        With ``masks`` alone the image is -1 everywhere and has no meaning.
        """
        label = self._label(x[:, self.images :].float())
        if not self.images:
            return torch.full_like(x[:, 0], -1, dtype=torch.int16), label
        low, high = self.window_hu
        image = (x[:, 0].float().clamp(-1, 1) + 1) * ((high - low) / 2) + low
        return image.round().to(torch.int16), label

    def _label(self, masks: Tensor) -> Tensor | None:
        if not self.mask_labels:
            return None
        ids = torch.tensor(list(self.mask_labels.values()), dtype=torch.uint8, device=masks.device)
        best, channel = masks.max(1)
        return torch.where(best > 0, ids[channel], 0).to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        order = [*self.labels, *self.tissues]  # JSON headers are written with their keys sorted
        unit = {} if self.modality == "CT" else {"modality": self.modality}
        return {
            **unit,
            "kind": "ct",
            "window_hu": list(self.window_hu),
            "labels": self.labels,
            "masks": self.masks,
            "tissues": self.tissues,
            "order": order,
        }


@dataclass(frozen=True)
class PictureCodec:
    """Map levels 0 to 255 to [-1, 1].

    Attributes:
        channels: 1 for grey pictures, 3 for RGB.
    """

    channels: int = 1

    @property
    def images(self) -> int:
        """How many channels are intensities: all."""
        return self.channels

    def encode(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """Map grey levels (b, h, w) or RGB (b, h, w, 3) to (b, channels, h, w)."""
        x = image.float() / 127.5 - 1
        return x[:, None] if self.channels == 1 else x.permute(0, 3, 1, 2).contiguous()

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (b, channels, h, w) to levels uint8, (b, h, w) or (b, h, w, 3); there is no label."""
        levels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        if self.channels == 1:
            return levels[:, 0], None
        return levels.permute(0, 2, 3, 1).contiguous(), None

    def to_dict(self) -> dict[str, Any]:
        # without channels where grey, as in version 0.1, so that fingerprints stay the same
        return {"kind": "image"} | ({"channels": self.channels} if self.channels > 1 else {})


def from_dict(content: Mapping[str, Any]) -> Codec:
    """Return the codec that ``to_dict`` described.

    Raises:
        WeightsError: a kind this version does not know.
    """
    match content.get("kind"):
        case "ct":
            low, high = content["window_hu"]
            by_name = content["labels"]
            # without an order they come from caches, which list their labels by id
            order = content.get("order", sorted(by_name, key=by_name.__getitem__))
            labels, tissues = (
                {name: found[name] for name in order if name in found}
                for found in (by_name, content.get("tissues", {}))
            )
            masks = content.get("masks", "joint")
            modality = content.get("modality", "CT")
            return CTCodec((float(low), float(high)), labels, masks, tissues, modality)
        case "image":
            return PictureCodec(int(content.get("channels", 1)))
        case other:
            raise WeightsError(f"codec {other!r} is not known (known: ct, image)")
