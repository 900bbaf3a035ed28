"""Files where they are: local disks, object stores, and atomic writes."""
