"""Every option: its name, default and check, declared once."""
