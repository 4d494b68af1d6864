"""Did the pixels go through a compression that changed them?"""

from medaug.data.checks.finding import Verdict


def check_compression(lossy: str) -> tuple[Verdict, str]:
    """The verdict on what headers tell of lossy compression, nothing or its name, and the reason.

    It is doubtful, however mild: a worst pixel moves by up to some tens of HU in JPEG.
    """
    return ("doubtful", f"its pixels went through {lossy} (lossy)") if lossy else ("ok", "")
