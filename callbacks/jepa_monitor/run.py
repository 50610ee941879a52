"""What a monitor knows while it serves one call of the Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

from .budget import Plan
from .notices import Notices
from .sources import Prepared
from .stopwatch import Stopwatch


@dataclass(frozen=True)
class Costs:
    """Seconds of the last measurement, and K; before the first, what pictures take about, and 0.

    Attributes:
        per_sample: for an exact Jacobian in each set.
        fixed: for all else, without pictures.
        pictures: for these.
        embedding_size: K.
    """

    per_sample: float = 0.0
    fixed: float = 0.0
    pictures: float = 0.6
    embedding_size: int = 0


@dataclass
class Run:
    """What belongs to one ``fit``, ``validate`` or ``test``, and is forgotten at the next.

    Attributes:
        title: of the monitor, before its warnings.
        prepared: the data, once they were read.
        plan: of the last measurement.
        costs: of the last measurement.
        stopwatch: of the fit.
        failure: why the last measurement failed, if it did.
        introduced: tags that the page and the layout have.
        is_painted: has the last measurement its pictures?
        step_seen: optimizer step at the end of the last batch.
        notices: what was warned of.
    """

    title: str
    prepared: Prepared | None = None
    plan: Plan | None = None
    costs: Costs = field(default_factory=Costs)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    failure: str | None = None
    introduced: set[str] = field(default_factory=set)
    is_painted: bool = True
    step_seen: int = 0

    def __post_init__(self) -> None:
        self.notices = Notices(self.title)
