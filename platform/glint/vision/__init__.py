"""Seeing: pictures in, tensors and classes out; one picture or one batch at a time."""
