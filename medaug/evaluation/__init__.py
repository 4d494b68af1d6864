"""Measure synthetic slices against real ones."""

from typing import Any

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from medaug.evaluation import report

        return getattr(report, name)
    raise AttributeError(f"module 'medaug.evaluation' has no attribute {name!r}")
