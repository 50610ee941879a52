"""Gram matrices in the contexts where a Jacobian silently goes wrong, and within the memory there is."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_monitor import Subspace, jacobian_gram
from jepa_monitor.density import Strategy, gram_and_embedding
from tests.monitor.density.helpers import WEIGHT, X, assert_equals_reference, make_mlp


def test_convolutional_network_with_channels_last_and_frozen_parameters() -> None:
    resnet = timm.create_model("resnet10t", num_classes=0).eval().requires_grad_(False)
    resnet = resnet.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    rows = torch.eye(512)[:7]
    gram = jacobian_gram(resnet, x, rows=rows)
    assert_equals_reference(gram, nn.Sequential(resnet, Select(7)), x)


class Select(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, z: Tensor) -> Tensor:
        return z[:, : self.count]


def test_compiled_modules_run_eagerly() -> None:
    mlp, x = make_mlp(6, 3), torch.randn(5, 6)
    traced = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        traced.append(graph)
        return graph.forward

    compiled = torch.compile(mlp, backend=backend)
    torch.testing.assert_close(jacobian_gram(compiled, x), jacobian_gram(mlp, x))
    assert not traced


class Checkpointed(nn.Module):
    """Uses saved-tensor hooks, which torch.func refuses."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


@pytest.mark.parametrize("chunk", [1, None])
def test_falls_back_where_torch_func_cannot_follow(chunk: int | None) -> None:
    mlp, x = make_mlp(6, 3), torch.randn(5, 6)
    with pytest.raises(RuntimeError, match="saved tensor hooks"):
        jacobian_gram(Checkpointed(mlp), x, strategy="jacrev")
    torch.testing.assert_close(jacobian_gram(Checkpointed(mlp), x, chunk=chunk), jacobian_gram(mlp, x))


@pytest.mark.parametrize("strategy", ["jacrev", "replicate", "forward"])
def test_smaller_passes_where_memory_runs_out(strategy: Strategy) -> None:
    mlp, x = make_mlp(6, 5), torch.randn(9, 6)
    largest = []

    def short_of_memory(inputs: Tensor) -> Tensor:
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("no memory")
        largest.append(len(inputs))
        return mlp(inputs)

    torch.testing.assert_close(jacobian_gram(short_of_memory, x, strategy=strategy), jacobian_gram(mlp, x))
    assert max(largest) > 1


def test_one_clear_sentence_where_nothing_fits() -> None:
    mlp, calls = make_mlp(6, 5), []

    def out_of_memory(inputs: Tensor) -> Tensor:
        calls.append(inputs)
        if len(calls) > 4:  # the survey still fitted
            raise torch.OutOfMemoryError("no memory")
        return mlp(inputs)

    with pytest.raises(torch.OutOfMemoryError, match="one sample and one row"):
        jacobian_gram(out_of_memory, torch.randn(4, 6))


def test_passes_keep_to_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp, x, batches = make_mlp(100, 50), torch.randn(64, 100), []

    def watched(inputs: Tensor) -> Tensor:
        batches.append(len(inputs))
        return mlp(inputs)

    jacobian_gram(watched, x)
    assert max(batches) == 64
    batches.clear()
    bytes_a_sample = 100 * 4 * 50
    monkeypatch.setattr("jepa_monitor.density.jacobian.free_bytes", lambda device: 2 * 10 * bytes_a_sample)
    jacobian_gram(watched, x)
    assert 2 < max(batches) <= 10


def test_float32_means_float32() -> None:
    """TF32 and its like, which a Lightning user often switches on, are off inside and on again afterwards."""
    mlp, inside = make_mlp(6, 3), []
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    before = [backend.fp32_precision for backend in backends]

    def watched(inputs: Tensor) -> Tensor:
        inside.append([backend.fp32_precision for backend in backends])
        return mlp(inputs)

    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        jacobian_gram(watched, torch.randn(3, 6))
        assert [backend.fp32_precision for backend in backends] == ["tf32"] * 3
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
    assert inside
    assert all(precision == "ieee" for call in inside for precision in call)


def test_no_samples_give_no_grams() -> None:
    gram, z = gram_and_embedding(make_mlp(6, 3), torch.randn(0, 6))
    assert gram.shape == (0, 3, 3)
    assert z.shape == (0, 3)


def test_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    jacobian_gram(make_mlp(6, 3).eval(), torch.ones(3, 6))
    fresh = torch.get_rng_state()
    torch.set_rng_state(before)
    make_mlp(6, 3)
    assert torch.equal(torch.get_rng_state(), fresh)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_same_where_gradients_are_off(context: type) -> None:
    mlp = make_mlp(6, 3)
    x = torch.randn(5, 6)
    expected = jacobian_gram(mlp, x)
    with context():
        gram = jacobian_gram(mlp, torch.randn_like(x).copy_(x))
    assert torch.equal(gram, expected)
    assert float(gram.abs().min()) > 0.0


def test_autocast_is_switched_off() -> None:
    mlp, x = make_mlp(6, 3), torch.randn(5, 6)
    expected = jacobian_gram(mlp, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram = jacobian_gram(mlp, x)
    assert torch.equal(gram, expected)


def test_rows_combine_outputs() -> None:
    mlp, x, rows = make_mlp(6, 5), torch.randn(4, 6), torch.randn(2, 5)
    gram = jacobian_gram(mlp, x)
    compressed = jacobian_gram(mlp, x, rows=rows)
    torch.testing.assert_close(compressed, rows.double() @ gram @ rows.double().T, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strategy", ["loop", "replicate", "jacrev", "forward", "auto"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_each_sample_may_have_its_own_rows(strategy: Strategy, chunk: int | None) -> None:
    mlp, x, rows = make_mlp(6, 5), torch.randn(5, 6), torch.randn(5, 2, 5)
    expected = rows.double() @ jacobian_gram(mlp, x) @ rows.double().mT
    compressed = jacobian_gram(mlp, x, rows=rows, strategy=strategy, chunk=chunk)
    torch.testing.assert_close(compressed, expected, rtol=1e-5, atol=1e-6)
    rows[3] = torch.nan
    compressed = jacobian_gram(mlp, x, rows=rows, strategy=strategy, chunk=chunk)
    assert torch.isfinite(compressed).flatten(1).all(1).tolist() == [True, True, True, False, True]
    assert jacobian_gram(mlp, x[:0], rows=rows[:0], strategy=strategy).shape == (0, 2, 2)


def test_leaves_gradients_alone() -> None:
    mlp = make_mlp(6, 3)
    jacobian_gram(mlp, torch.randn(4, 6))
    assert all(parameter.grad is None for parameter in mlp.parameters())


def force(inputs: Tensor) -> Tensor:
    """Part of the gradient of an energy with respect to the inputs."""
    with torch.enable_grad():
        inputs = inputs if inputs.requires_grad else inputs.clone().requires_grad_(True)
        energy = torch.tanh(inputs @ WEIGHT.to(inputs).T).square().sum()
        return torch.autograd.grad(energy, inputs, create_graph=True)[0][:, :4]


def test_few_rows_of_many_samples_come_from_plain_passes_of_a_bounded_number() -> None:
    mlp = nn.Sequential(nn.Linear(20, 12_000), nn.Tanh(), nn.Linear(12_000, 8))
    x, batches = torch.randn(50, 20), []

    def watched(inputs: Tensor) -> Tensor:
        batches.append(len(inputs))
        return mlp(inputs)

    rows = torch.randn(50, 3, 8)
    found = jacobian_gram(watched, x, rows=rows)
    assert max(batches) <= 16
    torch.testing.assert_close(found, jacobian_gram(mlp, x, rows=rows, strategy="jacrev"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["auto", "loop", "replicate"])
def test_encoders_may_differentiate(strategy: Strategy) -> None:
    with torch.no_grad():
        assert_equals_reference(jacobian_gram(force, X[:5], strategy=strategy), force, X[:5])
    subspace = Subspace.fit(force, X, 2, reference=force(X))
    assert not subspace.log_volume(force, X[:3]).requires_grad


def test_a_patch_embedding_before_a_gradient() -> None:
    patches, x = nn.Conv2d(3, 5, 4, stride=4), torch.randn(4, 3, 8, 8)

    def encode(images: Tensor) -> Tensor:
        return force(patches(images).flatten(1)[:, :6])

    gram = jacobian_gram(encode, x)
    patches.double()
    assert_equals_reference(gram, encode, x)
