"""Pictures of tensors and of final images, served over HTTP."""
