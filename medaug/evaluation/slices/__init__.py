"""Gather the real and synthetic slices that a report compares."""
