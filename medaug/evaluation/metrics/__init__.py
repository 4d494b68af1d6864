"""Compute metrics on arrays of features, masks and slices; none knows a model."""
