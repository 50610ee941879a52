"""What a monitor knows while it serves one call of the Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

from .probe.sources import Prepared
from .runtime.notices import Notices


@dataclass
class Run:
    """What belongs to one ``fit``, ``validate`` or ``test``, and is forgotten at the next.

    Attributes:
        title: of the monitor, before its warnings.
        prepared: the data, once they were read.
        failure: why the last measurement failed, if it did.
        lost: tags that it should have had, and could not find.
        introduced: tags that the page and the layout have.
        is_painted: has the last measurement its pictures?
        step_seen: optimizer step at the end of the last batch.
        seconds_of_reading: what the last reading of the encoder took.
        notices: what was warned of.
    """

    title: str
    prepared: Prepared | None = None
    failure: str | None = None
    lost: tuple[str, ...] = ()
    introduced: set[str] = field(default_factory=set)
    is_painted: bool = True
    step_seen: int = 0
    seconds_of_reading: float = 0.0

    def __post_init__(self) -> None:
        self.notices = Notices(self.title)
