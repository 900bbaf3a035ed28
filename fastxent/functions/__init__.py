"""What can be done with an array: losses, gradients, softmaxes, divergences. NumPy in, NumPy out."""
