"""Every objective trains as it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.golden import OVERLAYS, STEPS, losses, stored


@pytest.mark.filterwarnings("ignore:Nothing keeps the")  # of controls
@pytest.mark.parametrize("overlays", OVERLAYS, ids="+".join)
def test_losses_of_twenty_steps(overlays: tuple[str, ...], tmp_path: Path) -> None:
    expected = stored()["+".join(overlays)]
    assert len(expected) == STEPS
    np.testing.assert_allclose(losses(overlays, tmp_path), expected, rtol=1e-7)


def test_each_stored_line_is_compared() -> None:
    assert set(stored()) == {"+".join(overlays) for overlays in OVERLAYS}
