"""The command line: arguments, then the Python API, then a printer. Nothing is computed here."""
