"""A static page of a ranking, opened from disk without a server: one HTML file and a folder beside it."""

from jepa_train.ranking.page.writing import remove_page, write_page

__all__ = ["remove_page", "write_page"]
