"""Every way to a Jacobian gives that of float64 autograd, also where torch's vectorised rules are wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_monitor import EmbeddingReference, Subspace, jacobian_gram, jepa_score
from jepa_monitor.density import Encode, Strategy, gram_and_embedding
from jepa_monitor.density.strategies import jacobian_by_jacrev
from tests.monitor.density.helpers import (
    STRATEGIES,
    WEIGHT,
    X,
    assert_equals_reference,
    distances,
    make_mlp,
    reference_gram,
    vision_transformer,
)


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 4), (4, 12)], ids=["K<D", "K>D"])
@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_float64_autograd(inputs: int, outputs: int, chunk: int | None, strategy: Strategy) -> None:
    mlp, x = make_mlp(inputs, outputs), torch.randn(7, inputs)
    gram, z = gram_and_embedding(mlp, x, chunk=chunk, strategy=strategy)
    torch.testing.assert_close(z.float(), mlp(x))
    torch.testing.assert_close(gram, reference_gram(mlp, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", [*STRATEGIES[:-1], "patches"])
def test_vision_transformer_with_fused_attention(strategy: Strategy) -> None:
    vit, x = vision_transformer(), torch.randn(2, 3, 32, 32)
    assert_equals_reference(jacobian_gram(vit, x, strategy=strategy), vit, x)


@pytest.mark.parametrize("identity", [nn.Identity(), nn.Flatten(), lambda x: x])
@pytest.mark.parametrize("strategy", ["auto", "loop", "replicate", "jacrev", "forward"])
def test_the_identity_has_a_jacobian(identity: Encode, strategy: Strategy) -> None:
    gram = jacobian_gram(identity, X[:3], strategy=strategy)
    assert torch.equal(gram, torch.eye(6, dtype=torch.float64).expand(3, 6, 6))


def strided(inputs: Tensor) -> Tensor:
    """Writes the product of two coordinates over every second one."""
    products = inputs[:, :3] * inputs[:, 3:]
    return torch.as_strided_scatter(inputs.sin(), products, products.shape, (6, 2))


def product(inputs: Tensor) -> Tensor:
    """Product of pairs of coordinates, scattered into 3 places."""
    places = torch.tensor([0, 0, 1, 1, 2, 2]).expand(len(inputs), -1)
    return inputs.new_ones(len(inputs), 3).scatter_reduce(1, places, inputs, "prod")


WRONG_IN_TORCH = {
    "cdist p=1": distances(1.0),
    "cdist p=2": distances(2.0),
    "cdist p=3": distances(3.0),
    "cdist p=inf": distances(float("inf")),
    "as_strided_scatter": strided,
    "scatter_reduce prod": product,
}


@pytest.mark.filterwarnings("ignore:torch's vectorised derivative")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("chunk", [None, 16])
@pytest.mark.parametrize("strategy", ["auto", "jacrev", "forward", "replicate", "loop"])
@pytest.mark.parametrize("name", WRONG_IN_TORCH)
def test_wrong_rules_of_torch_change_nothing(name: str, strategy: Strategy, chunk: int | None) -> None:
    """26 samples in parts of 16 are 13 and 13: below the 25 rows at which ``cdist`` changes its algorithm."""
    encode = WRONG_IN_TORCH[name]
    if strategy == "forward" and name != "scatter_reduce prod":
        with pytest.raises(RuntimeError):  # torch says itself that it has no rule
            jacobian_gram(encode, X[:26], strategy=strategy)
        return
    assert_equals_reference(jacobian_gram(encode, X[:26], strategy=strategy, chunk=chunk), encode, X[:26])


def test_each_size_of_a_part_is_compared() -> None:
    """Parts of 26, 26 and 25 samples: ``cdist`` with p = 2 goes wrong in the last one only."""
    encode, x = distances(2.0), X.repeat(2, 1)[:77]
    with pytest.warns(UserWarning, match="vectorised derivative"):
        gram = jacobian_gram(encode, x, strategy="jacrev", chunk=26)
    assert_equals_reference(gram, encode, x)


def test_a_wrong_rule_is_reported_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jacobian_gram(distances(1.0), X, strategy="jacrev", chunk=8)
    assert len(caught) == 1
    assert "row by row" in str(caught[0].message)


@pytest.mark.filterwarnings("ignore:torch's vectorised derivative")
def test_scores_do_not_depend_on_the_number_of_samples() -> None:
    encode = distances(2.0)
    expected = torch.linalg.slogdet(reference_gram(encode, X)).logabsdet / 2
    for x in (X, X[:3]):
        torch.testing.assert_close(jepa_score(encode, x), expected[: len(x)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(jepa_score(encode, X, chunk=16), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:torch's vectorised derivative")
@pytest.mark.parametrize("shape", [(2, 4), (20, 2, 4)], ids=["shared", "of each sample"])
def test_rows_are_compared_too(shape: tuple[int, ...]) -> None:
    encode, rows = distances(1.0), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    compressed = jacobian_gram(encode, X[:20], rows=rows)
    expected = rows.double() @ reference_gram(encode, X[:20]) @ rows.double().mT
    torch.testing.assert_close(compressed, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("strategy", ["jacrev", "forward", "replicate"])
def test_rounding_is_no_wrong_rule(strategy: Strategy) -> None:
    """A sum that is always 1, saturated, dead and spoilt samples: warnings are errors, so there is none."""
    spoilt = X[:8].clone()
    spoilt[1], spoilt[2] = torch.nan, torch.inf
    for encode in (
        lambda x: x.softmax(1).sum(1, keepdim=True),
        lambda x: torch.nn.functional.layer_norm(1e4 * x, (6,)).tanh(),
        lambda x: (x - 9.0).relu(),
    ):
        jacobian_gram(encode, spoilt, strategy=strategy)


def under_autocast(encode: Encode, dtype: torch.dtype) -> Encode:
    def encode_coarsely(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return encode(inputs).to(dtype)

    return encode_coarsely


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("strategy", ["auto", "loop", "jacrev", "replicate", "forward"])
def test_half_precision_inside_is_no_wrong_rule(strategy: Strategy, dtype: torch.dtype) -> None:
    """An autocast of the encoder's own, whose output is in bfloat16 or not; warnings are errors."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(32, 32), nn.GELU()) for _ in range(6)]
        encode, x = nn.Sequential(*layers, nn.Linear(32, 8)), torch.randn(24, 32)
    gram = jacobian_gram(under_autocast(encode, dtype), x, strategy=strategy)
    expected = reference_gram(encode.double(), x)
    assert (gram - expected).abs().max() < 0.05 * expected.abs().max()  # bfloat16 has three digits


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_wrong_rules_are_found_beside_half_precision(p: float) -> None:
    x = X[:20].bfloat16().float()
    with pytest.warns(UserWarning, match="vectorised derivative"):
        gram = jacobian_gram(lambda inputs: distances(p)(inputs.bfloat16().to(inputs)), x, strategy="jacrev")
    expected = reference_gram(distances(p), x)
    assert (gram - expected).abs().max() < 0.05 * expected.abs().max()


def normalised(inputs: Tensor) -> Tensor:
    return torch.tanh(inputs.sub_(0.5).div_(0.25) @ WEIGHT.to(inputs).T)


def rectified(inputs: Tensor) -> Tensor:
    return torch.tanh(torch.relu_(inputs) @ WEIGHT.to(inputs).T)


@pytest.mark.parametrize("strategy", ["auto", "loop", "replicate", "jacrev", "forward"])
@pytest.mark.parametrize("encode", [normalised, rectified])
def test_encoders_may_write_into_their_input(encode: Encode, strategy: Strategy) -> None:
    x = X.clone()
    gram, z = gram_and_embedding(encode, x, strategy=strategy, chunk=30)
    assert torch.equal(x, X)  # the caller's stays whole
    assert_equals_reference(gram, lambda inputs: encode(inputs.clone()), X)
    torch.testing.assert_close(z.float(), encode(X.clone()))
    EmbeddingReference.measure(encode, x)
    subspace = Subspace.fit(encode, x, 1, reference=z)
    subspace.log_volume(encode, x)
    assert torch.equal(x, X)


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
