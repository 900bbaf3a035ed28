"""Kernels over the class axis: the row record, losses and what is written back."""
