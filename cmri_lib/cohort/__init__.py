"""From files to slices: readers, the phantom, splits by patient, preprocessing."""
