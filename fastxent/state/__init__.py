"""Exact, mergeable sums of scored rows."""
