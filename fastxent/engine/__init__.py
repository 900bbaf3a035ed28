"""Run units on threads, processes or a cluster. The engine does not know metrics or formats."""
