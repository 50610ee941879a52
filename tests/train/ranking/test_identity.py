"""The hash of an encoder: one for all processes, another for every change."""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from jepa_train.ranking.identity import identity_of
from tests.processes import run_python

CODE = """
import torch
from torch import nn
from jepa_train.ranking.identity import identity_of

class Odd(nn.Linear):
    def extra_repr(self):
        return str(lambda: None)  # with an address, another one in each process

torch.manual_seed(0)
print(identity_of(nn.Sequential(Odd(3, 4), nn.BatchNorm1d(4)), {"mean": [0.5], "pooling": "cls"}))
"""


def net(activation: type[nn.Module] = nn.GELU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.BatchNorm1d(4))


@pytest.mark.slow
def test_every_process_has_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text(CODE)
    runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert len(printed.strip()) == 64
    assert run_python(script, folder=tmp_path).stdout == printed


def test_it_changes_with_weights_buffers_layers_and_preparation() -> None:
    settings = {"mean": [0.5], "pooling": "cls"}
    known = {identity_of(net(), settings)}
    assert identity_of(net(), dict(reversed(settings.items()))) in known
    weights, statistics = net(), net()
    with torch.no_grad():
        weights[0].weight[0, 0] = torch.nextafter(weights[0].weight[0, 0], torch.tensor(9.0))
    statistics[2].running_var[0] = 2.0
    for module in (weights, statistics, net(nn.SiLU), net().double(), nn.Sequential(net()), net().half()):
        known.add(identity_of(module, settings))
    known.add(identity_of(net(), settings | {"mean": [0.4]}))
    known.add(identity_of(net(), settings | {"pooling": "mean"}))
    assert len(known) == 9


def test_memory_layout_and_half_precision_are_no_obstacle() -> None:
    module = net()
    expected = identity_of(module, {})
    module[0].weight.data = module[0].weight.data.T.contiguous().T
    assert not module[0].weight.is_contiguous()
    assert identity_of(module, {}) == expected
    assert len(identity_of(net().bfloat16(), {})) == 64


@pytest.mark.slow
def test_100_megabytes_take_less_than_a_second() -> None:
    module = nn.Linear(5000, 5000)
    start = time.process_time()
    identity_of(module, {})
    assert time.process_time() - start < 1.0
