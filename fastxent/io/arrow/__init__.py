"""Arrow IPC files and streams, and tables in memory."""
