"""Formats, files and memory: from bytes to batches of logits. This package does not know losses."""
