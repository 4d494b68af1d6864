"""Draw procedural abdomens and offer them as a source of scans."""
