"""Options: name, type, default, check, help and form of the flag, each declared once (in `declared`)."""
