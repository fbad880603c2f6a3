"""Bootstrap over patients, and the comparison of any two sets of slices."""
