"""Derive seeds: every random number is a function of a seed and a position, never of history."""

import hashlib

import torch


def derive(seed: int, *address: int | str) -> int:
    """Return a 63-bit seed for one address under ``seed``; equal addresses give equal seeds."""
    text = ":".join(str(part) for part in (seed, *address))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *address: int | str) -> torch.Generator:
    """Return a CPU generator for one address, so that its numbers are the same for every device."""
    return torch.Generator().manual_seed(derive(seed, *address))
