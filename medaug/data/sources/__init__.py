"""Open collections of scans and pictures: one module or package for each kind."""
