"""Compare: two cells, paired over the samples that they share."""
