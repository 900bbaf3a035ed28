"""Vectors of a fixed width, and exponentials and logarithms of them."""
