"""Scored rows from a batch of logits and the columns beside it."""
