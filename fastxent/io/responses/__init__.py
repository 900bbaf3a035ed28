"""JSON lines that servers of language models answer with: their tokens as rows."""
