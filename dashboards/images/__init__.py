"""Tensors and final images as pictures over HTTP."""
