"""The only code that touches the class axis: serial, nogil, allocation-free kernels and their launchers."""
