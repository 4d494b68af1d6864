"""Whether a synthetic CT slice and its mask may be kept: measured on real ones, judged one by one.

`measures` takes figures of a slice, `reference` keeps those of the real training slices, `bounds`
turns them into thresholds, `judging` holds a slice against them.
"""

from medaug.synthesis.filter.filter import REASONS, Filter, open_filter

__all__ = ["REASONS", "Filter", "open_filter"]
