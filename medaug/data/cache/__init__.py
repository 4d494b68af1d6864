"""Keep slices of prepared scans on disk, in the one format that training reads."""
