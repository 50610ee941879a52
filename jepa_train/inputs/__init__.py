"""Inputs of a training step: masks, views, and the random draws of a global batch."""
