"""``medaug.torchio``: the transforms for torchio pipelines."""

from medaug.transforms.torchio import RandomSynthesis, Synthesis

__all__ = ["RandomSynthesis", "Synthesis"]
