"""Ranking of images by any encoder: which files, which encoder, embeddings, volumes, a table, a page."""

from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.encoders import ImageEncoder, load_encoder
from jepa_train.ranking.results import merge
from jepa_train.ranking.run import rank
from jepa_train.ranking.writer import RankingWriter

__all__ = ["DataSettings", "ImageEncoder", "RankingWriter", "load_encoder", "merge", "rank"]
