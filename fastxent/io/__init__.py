"""Bytes to batches: formats, files and memory, and nothing of losses."""
