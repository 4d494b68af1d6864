"""The code as a tool: reconstruct slices, walk between them, add what an attribute adds."""

from medaug.explore.codes import Slices, attribute_vector, interpolate, reconstruct, walk
from medaug.explore.real import check_fit, open_feed, pick, show
from medaug.explore.sheets import Exploration, default_out, explore, plan
from medaug.explore.similarity import Similarity, attribute_similarity

__all__ = [
    "Exploration",
    "Similarity",
    "Slices",
    "attribute_similarity",
    "attribute_vector",
    "check_fit",
    "default_out",
    "explore",
    "interpolate",
    "open_feed",
    "pick",
    "plan",
    "reconstruct",
    "show",
    "walk",
]
