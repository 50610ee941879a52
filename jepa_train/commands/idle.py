"""Options of the model that do nothing: those that a user meant, apart from those that lie beneath an overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jepa_train.parts import Settings, what_does_nothing


def idle_options(
    left_out: Mapping[str, tuple[str, ...]], given: Sequence[Sequence[str]], settings: Settings
) -> list[str]:
    """Write one sentence on the options that were meant to do something and do nothing, or none.

    An overlay may leave out what the config beneath it sets: this is silent, as is the record of a run. An option that
    stands in the same file as what leaves it out, in a later one, or on the command line does nothing against the
    user's will.

    Args:
        left_out: options that do nothing, each with the names of those that leave it out.
        given: names of options in each config file that the user gave, in their order, and last on the command line.
        settings: values of all options.
    """

    chosen = [() if set(settings) <= set(known) else known for known in given]  # the record of a run has all options

    def last(names: Sequence[str]) -> int:
        """Place of the last file that sets one of the names; -1 if none does."""
        return max((place for place, known in enumerate(chosen) if not set(names).isdisjoint(known)), default=-1)

    meant = {name: reasons for name, reasons in left_out.items() if last([name]) >= max(last(reasons), 0)}
    return what_does_nothing(meant, settings)
