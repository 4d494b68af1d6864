"""What a user says of a collection that its files may not say."""

from dataclasses import dataclass
from typing import Literal

from medaug.errors import ConfigError


@dataclass(frozen=True)
class Wanted:
    """Wishes, None where the files decide.

    Attributes:
        modality: ``CT`` or ``MR``.
        names: label names, by a collection of `medaug.data.collections.names` or a json file.
    """

    modality: Literal["CT", "MR"] | None = None
    names: str | None = None

    def settle(self, said: str | None, where: str) -> Literal["CT", "MR"]:
        """The modality, where ``where`` says ``said``; CT where nobody says anything.

        Raises:
            ConfigError: the files say otherwise.
        """
        if self.modality is not None and said is not None and self.modality != said:
            raise ConfigError(f"modality: {self.modality} was asked, and {where} says {said}")
        return "MR" if "MR" in (self.modality, said) else "CT"
