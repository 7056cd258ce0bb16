"""Engines run a bundle's network: uint8 images in, logits out."""
