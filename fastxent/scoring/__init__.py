"""A batch of logits and the columns beside it to scored rows."""
