"""Draw synthetic slices from trained models, filter them, write them as data sets."""
