"""Work units over threads, processes or a cluster: knows no metric and no format."""
