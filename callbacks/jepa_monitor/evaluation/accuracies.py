"""Callbacks for how well frozen features separate classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..callback import Found
from ..errors import require_whole
from .classifiers import LinearProbe, principal, weighted_knn, whiten
from .labelled import HEADLINE, OnLabels, Task

# of pixels, in which a linear probe is fitted: enough for its accuracy, few enough for a second
COMPONENTS = 128


class OnlineKNN(OnLabels):
    """Accuracy of a weighted nearest-neighbour vote on frozen features, and on pixels: the lines to beat.

    ``knn/accuracy``: features, whitened by the bank; ``knn/accuracy_unwhitened``: as they are;
    ``knn/accuracy_NAME``: a further encoder's; ``knn/accuracy_pixels`` and ``knn/accuracy_pixels_whitened``: raw
    inputs, shrunk to at most 1,024 numbers. NaN with one warning where features say nothing (collapsed, not finite).

    Args:
        k: number of nearest neighbours that vote, see :func:`weighted_knn`.
        temperature: temperature of the neighbours' weights; a higher one makes them more equal.
        whiten: whiten the features of the first encoder. If false, the vote takes them as they are, and there is no
            ``knn/accuracy_unwhitened``.
        settings: as :class:`OnLabels` and :class:`OnlineEvaluation` take them: ``bank_size``, ``num_queries``,
            ``encoder``, ``pool``, ``probe``, ``reference``, ``images``, ``labels``, ``pixels``, ``every_n_epochs``,
            ``on_error`` and ``name``.
    """

    group = "knn"
    usual_tags = ("knn/accuracy",)

    def __init__(
        self,
        k: int = 20,
        temperature: float = 0.07,
        whiten: bool = True,
        **settings: Any,  # no Unpack[TypedDict], by which jsonargparse loses defaults and help texts
    ) -> None:
        require_whole(1, k=k)
        if not temperature > 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        super().__init__(**settings)
        self.k = k
        self.temperature = temperature
        self.whiten = whiten

    def ends(self, kind: str) -> tuple[str, ...]:
        """Pixels and the headline have two tags."""
        if kind == "pixels":
            return "accuracy_pixels", "accuracy_pixels_whitened"
        if kind != HEADLINE:
            return (f"accuracy_{kind}",)
        return ("accuracy", "accuracy_unwhitened") if self.whiten else ("accuracy",)

    def scores(self, task: Task, kind: str, found: Found) -> tuple[float, ...]:
        """Accuracies."""

        def accuracy(queries: Tensor, bank: Tensor) -> float:
            voted = weighted_knn(queries.float(), bank.float(), task.labels, k=self.k, temperature=self.temperature)
            return task.accuracy(voted)

        plain = accuracy(task.queries, task.bank)
        if len(self.ends(kind)) == 1:
            return (plain,)
        whitened = accuracy(*whiten(task.queries, task.bank))
        return (whitened, plain) if kind == HEADLINE else (plain, whitened)


class OnlineLinearProbe(OnLabels):
    """Accuracy of multinomial logistic regression on frozen features, and on pixels: the line to beat.

    ``linear_probe/accuracy`` of the queries and ``linear_probe/train_accuracy`` of the bank it was fitted to;
    ``linear_probe/accuracy_NAME``: a further encoder's; ``linear_probe/accuracy_pixels``: raw inputs, shrunk to at most
    1,024 numbers, in their first 128 principal components.

    It is fitted from nothing at each measurement, to the optimum, and not trained along with the encoder. A probe that
    is trained along lags behind features that move, so that its accuracy depends on its learning rate, on the number of
    steps so far and on a random start too; it needs an optimizer, gradients to synchronise and a place in checkpoints.
    The optimum of a strictly convex problem depends on the features alone, so that two measurements can be compared.

    Args:
        ridge: penalty on the weights; scikit-learn's C is 1 / (ridge * samples).
        max_iterations: largest number of L-BFGS steps; a warning says if they were not enough.
        settings: as :class:`OnlineKNN` takes them.
    """

    group = "linear_probe"
    usual_tags = ("linear_probe/accuracy", "linear_probe/train_accuracy")

    def __init__(
        self,
        ridge: float = 1e-3,
        max_iterations: int = 1_000,
        **settings: Any,  # no Unpack[TypedDict], by which jsonargparse loses defaults and help texts
    ) -> None:
        require_whole(1, max_iterations=max_iterations)
        if not ridge > 0.0:
            raise ValueError(f"ridge must be positive, got {ridge}.")
        super().__init__(**settings)
        self.ridge = ridge
        self.max_iterations = max_iterations

    def ends(self, kind: str) -> tuple[str, ...]:
        """The headline has a second tag: how well the bank itself is classified."""
        return ("accuracy", "train_accuracy") if kind == HEADLINE else (f"accuracy_{kind}",)

    def scores(self, task: Task, kind: str, found: Found) -> tuple[float, ...]:
        """Accuracies."""
        queries, bank = task.queries, task.bank
        if kind == "pixels":
            queries, bank = principal(queries, bank, components=COMPONENTS)
        probe = LinearProbe.fit(bank, task.labels, ridge=self.ridge, max_iterations=self.max_iterations)
        if not probe.converged:
            found.reasons.append(
                f"the linear probe of {kind or 'features'} did not converge in {probe.iterations} iterations: raise "
                "max_iterations or ridge."
            )
        of_queries = task.accuracy(probe.predict(queries))
        of_bank = float((probe.predict(bank) == task.labels).double().mean())
        return (of_queries, of_bank) if kind == HEADLINE else (of_queries,)
