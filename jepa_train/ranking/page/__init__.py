"""A static page of a ranking, opened from disk without a server: one HTML file and a folder beside it."""

from jepa_train.ranking.page.writing import write_page

__all__ = ["write_page"]
