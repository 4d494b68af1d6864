"""Examine a model's codes: reconstruct slices, walk between codes, add attributes, likelihoods."""

from medaug.evaluation.latent.attribute_similarity import Similarity, attribute_similarity
from medaug.evaluation.latent.codes import Slices, attribute_vector, interpolate, reconstruct, walk
from medaug.evaluation.latent.real_slices import check_fit, open_feed, pick, show
from medaug.evaluation.latent.sheets import Exploration, default_out, explore, plan

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
