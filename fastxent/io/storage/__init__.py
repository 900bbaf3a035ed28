"""Files on local disks and in object stores, and atomic writes."""
