"""Checkpoints: files, what a resume needs, and requests to stop."""
