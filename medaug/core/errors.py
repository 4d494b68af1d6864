"""Define all errors as one tree; messages name the subject, its value and what is accepted.

    MedaugError(ValueError)
      ConfigError      a setting, option or config file
      DataError        a folder, scan, label or image file that cannot be read as what it should be
      DownloadError    a server that cannot be reached, or that sends another file
      CacheError       a slice cache: other version, half-written, other settings
      RunError         a run folder: missing, other settings, no usable checkpoint
      WeightsError     a weight file: not safetensors, damaged, of another version
      OutputError      an output folder or disk that cannot take the result
      TrainingError    a loss or gradient that stopped being a number
      RanksError       a process of a job of several that ended or does not answer
      RefusedError     synthetic slices that the filter refuses again and again

The command line turns any of them into one line on standard error and exit status 2.
"""

from collections.abc import Sequence

LONGEST = 80
"""Most characters of a value in a message."""


def shown(value: object) -> str:
    """Return the repr of ``value`` for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def called(name: str) -> str:
    """Return ``name`` for a message: as it is if short and printable, else as ``shown``."""
    return name if name.isprintable() and len(name) <= LONGEST else shown(name)


def reason(error: BaseException) -> str:
    """Return the message of an error in one line, cut where it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 2 * LONGEST else f"{text[: 2 * LONGEST]}..."


class MedaugError(ValueError):
    """A mistake that the user can correct; the message says how."""


class ConfigError(MedaugError):
    """A setting has a value that is not accepted."""


class DataError(MedaugError):
    """A source on disk is missing, damaged or contradicts itself."""


class DownloadError(MedaugError):
    """A file cannot be downloaded."""


class CacheError(MedaugError):
    """A slice cache cannot be used as it is."""


class RunError(MedaugError):
    """A run folder cannot be used as it is."""


class WeightsError(MedaugError):
    """A weight file cannot be loaded."""


class OutputError(MedaugError):
    """A result cannot be written to its place."""


class TrainingError(MedaugError):
    """A loss or gradient is not finite, or a turn cannot be trained."""


class RanksError(MedaugError):
    """Another process of the same job is gone."""


class RefusedError(MedaugError):
    """Hardly any synthetic slice passes the filter.

    Attributes:
        reasons: why slices were refused, one for each.
    """

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = list(reasons)
