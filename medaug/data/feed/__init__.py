"""Turn cached slices into training batches on the device."""
