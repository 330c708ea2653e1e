"""Images for training and for tests."""
