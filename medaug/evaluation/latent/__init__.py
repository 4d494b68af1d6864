"""Examine a model's codes: likelihoods, sheets along codes, attribute similarity."""
