"""The scans of a source, judged for a reader: as a table, and as one page with pictures."""

from medaug.data.quality.page import render
from medaug.data.quality.survey import Judged, survey, table

__all__ = ["Judged", "render", "survey", "table"]
