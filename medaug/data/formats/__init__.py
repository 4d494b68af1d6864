"""Read scans and labels from DICOM, NIfTI and other formats, within limits."""
