"""Mix slices into scans: functions on arrays, and one adapter for each library."""
