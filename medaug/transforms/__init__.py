"""Synthetic pairs inside other libraries' augmentation pipelines."""
