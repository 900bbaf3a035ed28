"""What can be done with a dump: evaluate, transform, convert, plan."""
