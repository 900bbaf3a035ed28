"""Functions of arrays: losses, gradients, softmaxes, divergences. Results are NumPy arrays."""
