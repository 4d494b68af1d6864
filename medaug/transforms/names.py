"""Which of a subject's images are meant."""

from medaug.errors import ConfigError


def pick(
    scalars: list[str], maps: list[str], image: str | None, label: str | None
) -> tuple[str, str | None]:
    """The names of the scalar image to change and of its label map, if there is one.

    Args:
        scalars: names of the scalar images.
        maps: names of the label maps.
        image: the one asked for, None for the only one.
        label: the one asked for, None for the only one or none.

    Raises:
        ConfigError: they do not say which.
    """
    scalar = _choose(scalars, image, "scalar image", "image")
    if scalar is None:
        raise ConfigError("the subject has no scalar image to replace")
    return scalar, _choose(maps, label, "label map", "label") if maps or label else None


def _choose(names: list[str], asked: str | None, what: str, argument: str) -> str | None:
    listed = ", ".join(names) or "none"
    if asked is not None and asked not in names:
        raise ConfigError(f"the subject has no {what} {asked!r} (it has: {listed})")
    if asked is None and len(names) > 1:
        raise ConfigError(
            f"the subject has several {what}s ({listed}); say which to replace, such as "
            f"{argument}={names[0]!r}"
        )
    return asked or (names[0] if names else None)
