"""What a training step reads: masks, views, and the random draws of a global batch."""
