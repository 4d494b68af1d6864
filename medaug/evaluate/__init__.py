"""What synthetic slices are worth, measured beside real ones."""
