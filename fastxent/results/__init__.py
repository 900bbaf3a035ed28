"""Sums to values, and values to text, JSON, HTML and trackers."""
