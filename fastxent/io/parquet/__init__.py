"""Parquet files: from pages to rows of logits."""
