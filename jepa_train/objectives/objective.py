"""The training objective: the anti-collapse terms by name, and the weighted sum of all terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.objectives.barlow_twins import Barlow
from jepa_train.objectives.hypersphere import Uniformity
from jepa_train.objectives.prediction import TokenLoss, centre_prediction, check_token_loss, token_prediction
from jepa_train.objectives.sliced_gaussianity import SIGReg
from jepa_train.objectives.term import Anticollapse
from jepa_train.objectives.variance_covariance import VICReg
from jepa_train.objectives.whitening import WhiteningMSE

# a further term needs its formula's file, a line here, and its name for type checkers and the command line
ANTICOLLAPSE: dict[str, type[Anticollapse]] = {
    "sigreg": SIGReg,
    "vicreg": VICReg,
    "barlow": Barlow,
    "whitening_mse": WhiteningMSE,
    "uniformity": Uniformity,
}
NO_TERM = "none"
ANTICOLLAPSE_NAMES: tuple[str, ...] = (*ANTICOLLAPSE, NO_TERM)
AnticollapseName = Literal["sigreg", "vicreg", "barlow", "whitening_mse", "uniformity", "none"]
AnticollapseOn = Literal["embedding", "tokens", "both"]


def build_anticollapse(name: AnticollapseName, *, num_slices: int = 256) -> Anticollapse | None:
    """Build the term called ``name`` with its paper's settings; ``None`` for ``none``.

    Args:
        name: one of ``ANTICOLLAPSE_NAMES``.
        num_slices: directions of ``sigreg`` per step; the other terms draw none.

    Raises:
        ConfigurationError: for another name.
    """
    if name not in ANTICOLLAPSE_NAMES:
        raise ConfigurationError(f"anticollapse must be one of {', '.join(ANTICOLLAPSE_NAMES)}, got {name!r}.")
    if name == NO_TERM:
        return None
    term = ANTICOLLAPSE[name]
    return SIGReg(num_slices) if term is SIGReg else term()


class Objective(nn.Module):
    """Weights and settings of the loss's terms.

    Args:
        token_weight, embedding_weight, centre_weight, anticollapse_weight, spectral_weight: weights of the terms; one
            of weight 0 is not computed.
        token_loss: ``smooth_l1``, ``l2`` or ``cosine``.
        stop_gradient: let no gradient of the token loss into the target.
        anticollapse: term against collapse, or ``None``.
        anticollapse_on: ``embedding``, ``tokens`` or ``both``.
        global_views: views whose mean is the centre.

    Attributes:
        weights: weights by the names of the terms.
        guarded: what the term against collapse acts on.

    Raises:
        ConfigurationError: for another ``token_loss`` or ``anticollapse_on``, one that needs masks where there are
            none, or where nothing is predicted.
    """

    def __init__(
        self,
        *,
        token_weight: float,
        embedding_weight: float,
        centre_weight: float,
        anticollapse_weight: float,
        spectral_weight: float,
        token_loss: TokenLoss,
        stop_gradient: bool,
        anticollapse: Anticollapse | None,
        anticollapse_on: AnticollapseOn,
        global_views: int = 2,
    ) -> None:
        super().__init__()
        if anticollapse_on not in get_args(AnticollapseOn):
            raise ConfigurationError(f"anticollapse_on must be embedding, tokens or both, got {anticollapse_on!r}.")
        check_token_loss(token_loss)
        if not (token_weight or embedding_weight or centre_weight):
            raise ConfigurationError(
                "nothing is predicted: give token_weight, embedding_weight or centre_weight a value above 0."
            )
        self.weights = {
            "tokens": token_weight,
            "embedding": embedding_weight,
            "centre": centre_weight,
            "anticollapse": anticollapse_weight,
            "spectral": spectral_weight,
        }
        self.token_loss = token_loss
        self.stop_gradient = stop_gradient
        self.global_views = global_views
        self.anticollapse = anticollapse if anticollapse_weight else None
        self.guarded = ("embedding", "tokens") if anticollapse_on == "both" else (anticollapse_on,)
        if self.guards_tokens and not self.hides_patches:
            raise ConfigurationError(
                "an anti-collapse term on tokens needs hidden patches: set anticollapse_on to embedding, or give "
                "token_weight or embedding_weight a value above 0."
            )

    @property
    def hides_patches(self) -> bool:
        """True if something is predicted from visible patches, so that there are masks and a predictor."""
        return bool(self.weights["tokens"] or self.weights["embedding"])

    @property
    def compares_views(self) -> bool:
        """True if the embeddings of whole views are predicted from each other."""
        return bool(self.weights["centre"])

    @property
    def guards_tokens(self) -> bool:
        """True if the term against collapse acts on tokens."""
        return self._guards("tokens")

    @property
    def pairs_tokens(self) -> bool:
        """True if the term against collapse compares the token at one place of two views."""
        return self.anticollapse is not None and self.anticollapse.paired and self.guards_tokens

    @property
    def needs_embedding(self) -> bool:
        """True if a term reads the embedding z."""
        return bool(self.weights["embedding"]) or self.compares_views or self._guards("embedding")

    @property
    def what_collapses(self) -> list[str]:
        """Sentences on what is predicted best as a single point, for everything, because no term keeps it from that."""
        sentences = []
        if (self.weights["embedding"] or self.compares_views) and not self._guards("embedding"):
            sentences.append(
                "Nothing keeps the embedding from collapsing to a point, where it is predicted without an error: "
                "choose an anticollapse term on it, unless this run is a control."
            )
        if self.weights["tokens"] and not self.stop_gradient and not self.guards_tokens:
            sentences.append(
                "Nothing keeps the tokens from becoming all alike, which are predicted without an error then: set "
                "stop_gradient to true, or choose an anticollapse term on tokens, unless this run is a control."
            )
        return sentences

    def _guards(self, what: str) -> bool:
        return self.anticollapse is not None and what in self.guarded

    def seen_whole(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        """Choose the views which the online encoder sees whole: all, or view B if a term reads it."""
        if self.compares_views:
            return views
        return views[1:2] if self.weights["embedding"] or self.anticollapse is not None else []

    def token_term(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Distance between predicted tokens and the target's, see :func:`token_prediction`."""
        return token_prediction(predicted, target, loss=self.token_loss, stop_gradient=self.stop_gradient)

    def centre_term(self, z: Tensor) -> Tensor:
        """Distance of all views (W, B, K) from the centre of the global ones, see :func:`centre_prediction`."""
        return centre_prediction(z, num_global=self.global_views)

    def anticollapse_term(self, views: Mapping[str, Sequence[Tensor]], seed: int) -> Tensor:
        """Mean of the term over all that it acts on.

        Args:
            views: two views (B, K) or more, for every name in ``guarded``.
            seed: seed of the step, see ``Anticollapse``.
        """
        assert self.anticollapse is not None
        return torch.stack([self.anticollapse.over_views(views[name], seed) for name in self.guarded]).mean()

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the terms."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
