"""Two cells, paired over the samples that they share."""
