"""The commands, one per file: each is its options and one call of the Python API, which is imported on use."""
