"""Extract features of slices: pixels, convolutions, texture, encoders, TorchScript."""
