"""From files to slices: readers, splits by patient, preprocessing."""
