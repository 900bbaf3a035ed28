"""The values of a result, and their text, JSON and HTML; trackers."""
