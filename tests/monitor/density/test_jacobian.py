"""Gram matrices against float64 autograd, and in the contexts where a Jacobian silently goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from jepa_monitor import EmbeddingReference, jacobian_gram, jepa_score
from jepa_monitor.density import Strategy, gram_and_embedding, jacobian
from jepa_monitor.density.strategies import jacobian_by_jacrev
from jepa_monitor.density.survey import survey


def reference_gram(encode: nn.Module, x: Tensor) -> Tensor:
    """One sample at a time in float64, by autograd's own Jacobian."""
    encode = encode.double()
    grams = []
    for sample in x.double():
        jacobian = torch.autograd.functional.jacobian(lambda s: encode(s.unsqueeze(0))[0], sample).flatten(1)
        grams.append(jacobian @ jacobian.T)
    return torch.stack(grams)


def make_mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


STRATEGIES: tuple[Strategy, ...] = ("auto", "loop", "replicate", "jacrev", "forward")


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 4), (4, 12)], ids=["K<D", "K>D"])
@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_float64_autograd(inputs: int, outputs: int, chunk: int | None, strategy: Strategy) -> None:
    mlp, x = make_mlp(inputs, outputs), torch.randn(7, inputs)
    gram, z = gram_and_embedding(mlp, x, chunk=chunk, strategy=strategy)
    torch.testing.assert_close(z.float(), mlp(x))
    torch.testing.assert_close(gram, reference_gram(mlp, x), rtol=1e-5, atol=1e-6)


def vision_transformer() -> nn.Module:
    """Patches of 768 values become tokens of 64: the Jacobian is smaller behind the patch embedding."""
    return timm.create_model("test_vit", img_size=32, num_classes=0, global_pool="avg").eval()


def assert_equals_reference(gram: Tensor, encode: nn.Module, x: Tensor) -> None:
    expected = reference_gram(encode, x)
    torch.testing.assert_close(gram, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("strategy", [*STRATEGIES[:-1], "patches"])
def test_vision_transformer_with_fused_attention(strategy: Strategy) -> None:
    vit, x = vision_transformer(), torch.randn(2, 3, 32, 32)
    assert_equals_reference(jacobian_gram(vit, x, strategy=strategy), vit, x)


def test_stops_at_the_patch_embedding_by_itself() -> None:
    vit, x = vision_transformer(), torch.randn(2, 3, 32, 32)
    assert survey(vit, x).patch_layer is vit.patch_embed.proj
    # a border that no patch covers has no gradient
    bordered = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3))
    wide = torch.randn(2, 3, 10, 10)
    assert survey(bordered, wide).patch_layer is bordered[0]
    assert_equals_reference(jacobian_gram(bordered, wide), bordered, wide)


class SecondEntrance(nn.Module):
    """Looks at the image beside its patches too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3)) + x.square().mean((1, 2, 3)).unsqueeze(1)


class Twice(SecondEntrance):
    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) * self.layer(x)).mean((2, 3))


@pytest.mark.parametrize("kind", [SecondEntrance, Twice])
def test_patches_only_where_the_input_has_no_other_way_in(kind: type[SecondEntrance]) -> None:
    encode, x = kind(nn.Conv2d(3, 5, 4, stride=4)), torch.randn(3, 3, 8, 8)
    assert survey(encode, x).patch_layer is None
    with pytest.raises(ValueError, match="use strategy='auto'"):
        jacobian_gram(encode, x, strategy="patches")
    assert_equals_reference(jacobian_gram(encode, x), encode, x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 4, stride=2),
        nn.Conv2d(3, 5, 4, stride=4, padding=2),
        nn.Conv2d(3, 6, 4, stride=4, groups=3),
        nn.Conv2d(3, 5, 2, stride=2, dilation=2),
        nn.Conv2d(1, 20, 4, stride=4),
    ],
    ids=["overlap", "padding", "groups", "dilation", "wider than a patch"],
)
def test_other_convolutions_are_no_patch_embedding(layer: nn.Conv2d) -> None:
    encode = nn.Sequential(layer, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, layer.in_channels, 16, 16)
    assert survey(encode, x).patch_layer is None
    assert_equals_reference(jacobian_gram(encode, x), encode, x)


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
        if len(calls) > 3:  # the survey still fitted
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
    monkeypatch.setattr(jacobian, "_free_bytes", lambda device: 2 * 10 * bytes_a_sample)
    jacobian_gram(watched, x)
    assert 2 < max(batches) <= 10


class BatchMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_refuses_batch_statistics_and_leaves_them_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\) mixes the samples"):
        jacobian_gram(model, torch.randn(8, 6))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.isfinite(jacobian_gram(model.eval(), torch.randn(8, 6))).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_refuses_samples_that_interact(count: int) -> None:
    encode = nn.Sequential(nn.Linear(6, 4), BatchMean())
    for function in (encode, encode.forward, partial(encode), lambda x: encode(x)):
        with pytest.raises(ValueError, match=r"1 \(BatchMean\) mixes the samples of a batch"):
            jacobian_gram(function, torch.randn(count, 6))
    with pytest.raises(ValueError, match="the encoder mixes"):
        jacobian_gram(lambda x: x - x.mean(0), torch.randn(count, 6))
    with pytest.raises(ValueError, match="the encoder mixes"):
        jacobian_gram(lambda x: x - x.mean(0), torch.zeros(count, 6))


def test_refuses_random_encoders() -> None:
    with pytest.raises(ValueError, match=r"1 \(Dropout\) is random.*eval mode"):
        jacobian_gram(nn.Sequential(nn.Linear(6, 40), nn.Dropout()), torch.randn(4, 6))


class Noisy(nn.Module):
    """An encoder that is random, or mixes samples, between its two layers."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 40), nn.Linear(40, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def test_what_happens_between_modules_is_blamed_on_none_of_them() -> None:
    noisy, x = Noisy(nn.functional.dropout), torch.randn(4, 6)
    with pytest.raises(ValueError, match=r"^the encoder \(Noisy\) is random"):
        jacobian_gram(noisy, x)
    with pytest.raises(ValueError, match=r"^1 \(Noisy\) is random"):
        jacobian_gram(nn.Sequential(nn.Linear(6, 6), noisy, nn.Linear(4, 3)), x)
    with pytest.raises(ValueError, match=r"^the encoder is random"):
        jacobian_gram(lambda x: noisy.second(nn.functional.dropout(noisy.first(x))), x)
    with pytest.raises(ValueError, match=r"^the encoder \(Noisy\) mixes the samples"):
        jacobian_gram(Noisy(lambda z: z - z.mean(0)), x)
    with pytest.raises(ValueError, match=r"^1 \(Dropout\) is random"):  # in place: its input is other afterwards
        jacobian_gram(nn.Sequential(nn.Linear(6, 40), nn.Dropout(inplace=True)), x)


def test_attention_that_is_random_is_named() -> None:
    layer, tokens = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True), torch.randn(4, 5, 8)
    layer.dropout1, layer.dropout2, layer.dropout = nn.Identity(), nn.Identity(), nn.Identity()
    with pytest.raises(ValueError, match=r"^self_attn \(MultiheadAttention\) is random"):
        jacobian_gram(lambda x: layer(x).mean(1), tokens)


def test_what_is_no_tensor_is_refused_in_one_sentence() -> None:
    mlp, x = make_mlp(6, 3), torch.randn(8, 6)
    for inputs in (x.numpy(), x.tolist(), list(x)):
        for call in (jacobian_gram, jepa_score, EmbeddingReference.measure, partial(jepa_score, views=lambda x: x)):
            with pytest.raises(TypeError, match=r"^inputs are of type (list|ndarray): pass one tensor"):
                call(mlp, inputs)  # type: ignore[operator]  # functions of one kind in a list
    for encode in (lambda x: (mlp(x), x), lambda x: {"z": mlp(x)}):
        for call in (jacobian_gram, jepa_score, EmbeddingReference.measure):
            for samples in (x, x[:0]):
                with pytest.raises(TypeError, match=r"^embeddings are of type (tuple|dict): pass an encoder that"):
                    call(encode, samples)  # type: ignore[operator]  # as above


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
    sketched = jacobian_gram(mlp, x, rows=rows)
    torch.testing.assert_close(sketched, rows.double() @ gram @ rows.double().T, rtol=1e-5, atol=1e-7)


def test_leaves_gradients_alone() -> None:
    mlp = make_mlp(6, 3)
    jacobian_gram(mlp, torch.randn(4, 6))
    assert all(parameter.grad is None for parameter in mlp.parameters())


def test_refuses_tokens() -> None:
    with pytest.raises(ValueError, match="pool its tokens"):
        jacobian_gram(lambda x: x.unsqueeze(1).expand(-1, 3, -1), torch.randn(4, 6))


def test_refuses_detached_embeddings() -> None:
    with pytest.raises(ValueError, match="detach"):
        jacobian_gram(lambda x: x.detach(), torch.randn(4, 6))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_keeps_its_derivative(approximate: str) -> None:
    encode = nn.Sequential(nn.Linear(12, 16), nn.GELU(approximate), nn.Linear(16, 8), nn.GELU(approximate))
    x = 3.0 * torch.randn(5, 12)
    assert_equals_reference(jacobian_gram(encode, x, strategy="jacrev"), encode, x)


def test_gelu_is_differentiated_once_and_not_once_a_row() -> None:
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    encode, x = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 8)), torch.randn(5, 12)
    with Count():
        jacobian_by_jacrev(encode, x, None, embedding_size=8, rows_per_pass=1)
    assert calls.count(torch.ops.aten.gelu_backward.default) == 1
