"""What came out: verdicts on samples, distances between sets of images, metrics of models."""
