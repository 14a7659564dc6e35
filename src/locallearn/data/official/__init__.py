"""The data sets of the papers, one file each."""
