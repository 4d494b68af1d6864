"""Deal with the machine: files, locks, signals, devices, processes, progress, pages."""
