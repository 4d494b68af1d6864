"""Feature spaces: what a slice is turned into before sets of slices are compared."""
