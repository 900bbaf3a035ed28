"""Rows to exact, mergeable sums."""
