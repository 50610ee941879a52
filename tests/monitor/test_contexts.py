"""The same weights give the same values, whatever Lightning does around the measurement."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from jepa_monitor import EmbeddingReference, jepa_score, log_density
from jepa_monitor.runtime.encoder import embed
from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated"),
]
PROBE = images(48, seed=3)


class Project(Autoencoder):
    def __init__(self) -> None:
        pl.seed_everything(0, verbose=False)
        super().__init__()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def compare(found: dict[str, Any], expected: dict[str, Any], *, tolerance: float) -> None:
    names = [name for name in expected if name.startswith(("density/", "gaussianity/", "jacobian/"))]
    assert len(names) > 20
    for name in names:
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=tolerance, abs=tolerance, nan_ok=True), (
            name
        )


def validated(tmp_path: Path, module: pl.LightningModule, **settings: Any) -> dict[str, Any]:
    run = trainer(tmp_path, monitor(probe=PROBE, reference=images()), **settings)
    (values,) = run.validate(module, loader(seed=1), verbose=False)
    return dict(values)


def test_validate_and_test_measure_alike(tmp_path: Path) -> None:
    module, callback = Project(), monitor(probe=PROBE, reference=images())
    run = trainer(tmp_path, callback)
    run.fit(module, loader(), loader(seed=1))
    in_fit = {tag: value for tag, value in run.callback_metrics.items() if tag != "density/stability"}
    compare(validated(tmp_path, module), in_fit, tolerance=1e-6)
    (tested,) = trainer(tmp_path, monitor(probe=PROBE, reference=images())).test(module, loader(), verbose=False)
    compare(tested, in_fit, tolerance=1e-6)
    assert tested["scores/jepa_score_median"] > -20.0  # a Jacobian of zeros would give 3 log 1e-6 = -41


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true", "64-true"])
def test_precision_of_training_is_not_that_of_the_measurement(tmp_path: Path, precision: Any) -> None:
    module = Project()
    found = validated(tmp_path, module, precision=precision)
    # Lightning has cast the weights; the same values as float32 weights
    compare(found, validated(tmp_path, copy.deepcopy(module).float()), tolerance=1e-4)


def test_half_precision_would_be_off(tmp_path: Path) -> None:
    """The reason for float32 copies: a bfloat16 backward pass rounds the spectrum."""
    module = Project().eval()
    precise = jepa_score(module, PROBE)
    half = jepa_score(copy.deepcopy(module).bfloat16(), PROBE.bfloat16())
    assert float((precise - half).abs().max()) > 0.01


def test_training_in_bfloat16_keeps_its_weights(tmp_path: Path) -> None:
    module = Project()
    trainer(tmp_path, monitor(probe=PROBE), precision="bf16-true").fit(module, loader(), loader(seed=1))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_a_compiled_module_is_measured_eagerly(tmp_path: Path) -> None:
    module = Project()
    expected = validated(tmp_path, module)
    compiled = Project()
    compiled.encoder.compile(backend="aot_eager")
    compiled.bottleneck = torch.compile(compiled.bottleneck, backend="aot_eager")  # type: ignore[assignment]  # it was a Linear
    compare(validated(tmp_path, compiled), expected, tolerance=1e-6)


class Probe(pl.Callback):
    """Weights that validation sees."""

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.module = copy.deepcopy(pl_module).eval()


@pytest.mark.filterwarnings("ignore:.*torch.lerp")
@pytest.mark.parametrize("averaging", [WeightAveraging, EMAWeightAveraging])
@pytest.mark.parametrize("averaging_first", [True, False])
def test_averaged_weights_are_measured_in_either_order(
    tmp_path: Path, averaging: Any, averaging_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    average, callback, seen = averaging(), monitor(probe=PROBE, reference=images()), Probe()
    callbacks = [average, callback] if averaging_first else [callback, average]
    module = Project()
    run = trainer(tmp_path, *callbacks, seen)
    final: dict[str, Tensor] = {}

    class Last(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
            final.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    run.callbacks.append(Last())
    run.fit(module, loader(), loader(seed=1))
    assert callback.readings is not None
    torch.testing.assert_close(callback.readings.z, embed(seen.module, PROBE))
    current = Project().eval()
    current.load_state_dict(final)
    assert float((callback.readings.z - embed(current, PROBE)).abs().max()) > 1e-4  # not the current weights
    assert f"these are the weights of {averaging.__name__}" in caplog.text


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(loader(seed=1).dataset)


@pytest.mark.filterwarnings("ignore:.*torch.lerp")
@pytest.mark.parametrize(
    "validation",
    [DataLoader(Stream(), batch_size=8), CombinedLoader({"a": loader(seed=1), "b": loader(16, seed=2)}, "max_size")],
    ids=["of unknown length", "side by side"],
)
def test_averaged_weights_are_measured_whatever_validation_reads(tmp_path: Path, validation: Any) -> None:
    class Reads(Project):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

    callback, seen = monitor(probe=PROBE, reference=images()), Probe()
    trainer(tmp_path, WeightAveraging(), callback, seen).fit(Reads(), loader(), validation)
    assert callback.readings is not None
    torch.testing.assert_close(callback.readings.z, embed(seen.module, PROBE))


def test_values_are_those_of_the_functions(tmp_path: Path) -> None:
    module, callback = Project(), monitor(probe=PROBE)
    trainer(tmp_path, callback).fit(module, loader(), loader(seed=1))
    assert callback.readings is not None
    module.eval()
    reference = EmbeddingReference.measure(module, images())  # what it is trained on
    torch.testing.assert_close(callback.readings.scores.jepa_score, jepa_score(module, PROBE))
    expected = log_density(module, PROBE, reference=reference)
    torch.testing.assert_close(callback.readings.scores.log_density, expected)
    assert callback.readings.rank == reference.rank
    assert math.isfinite(float(expected.mean()))
