"""Translate images with CycleGAN generators, in bulk and fast."""
