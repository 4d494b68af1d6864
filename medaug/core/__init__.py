"""Define the words of the domain: types, axes, units, geometry, codec, config, errors."""
