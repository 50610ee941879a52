"""Ranking of images by any encoder: which files, which encoder, embeddings, volumes, a table, a page."""
