"""Randomness is addressed: every draw is a function of a seed and a position, never of history."""

import hashlib

import torch


def derive(seed: int, *address: int | str) -> int:
    """A 63-bit seed for one address below ``seed``; equal addresses give equal seeds."""
    text = ":".join(str(part) for part in (seed, *address))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *address: int | str) -> torch.Generator:
    """A CPU generator for one address, so that draws agree on every device."""
    return torch.Generator().manual_seed(derive(seed, *address))
