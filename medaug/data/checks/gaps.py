"""Has every voxel a value?"""

from medaug.data.checks.finding import Verdict


def check_gaps(unknown: int) -> tuple[Verdict, str]:
    """The verdict on how many voxels are no number, and the reason."""
    if not unknown:
        return "ok", ""
    return "doubtful", f"{unknown} voxels are no finite number and count as background"
