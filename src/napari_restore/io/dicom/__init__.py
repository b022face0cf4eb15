"""DICOM: single files, and folders with a series."""
