"""Train joint-embedding predictive architectures."""

from jepa_train.module import JEPA

__all__ = ["JEPA"]
