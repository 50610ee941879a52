"""Encoders that torch differentiates wrongly, or whose forward does what others do not: against float64 autograd."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, Sketch, jacobian_gram, jepa_score
from jepa_monitor.density import Encode, Strategy, gram_and_embedding
from jepa_monitor.density.survey import survey

GENERATOR = torch.Generator().manual_seed(0)
CENTRES, WEIGHT = torch.randn(4, 6, generator=GENERATOR), torch.randn(4, 6, generator=GENERATOR)
X = torch.randn(64, 6, generator=GENERATOR)


def reference_gram(encode: Encode, x: Tensor) -> Tensor:
    """One sample at a time in float64, by autograd's own Jacobian."""
    grams = []
    for sample in x.double():
        jacobian = torch.autograd.functional.jacobian(lambda one: encode(one[None])[0], sample).flatten(1)
        grams.append(jacobian @ jacobian.T)
    return torch.stack(grams)


def assert_equals_reference(gram: Tensor, encode: Encode, x: Tensor) -> None:
    expected = reference_gram(encode, x)
    torch.testing.assert_close(gram, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def distances(p: float) -> Encode:
    return lambda inputs: torch.cdist(inputs, CENTRES.to(inputs), p=p)


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
def test_the_sketch_has_the_same_rows() -> None:
    encode, rows = distances(1.0), torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    sketched = jacobian_gram(encode, X[:20], rows=rows)
    expected = rows.double() @ reference_gram(encode, X[:20]) @ rows.double().T
    torch.testing.assert_close(sketched, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    sketch = Sketch.fit(encode, X[:40], 4)
    by_rows = sketch.estimate(jacobian_gram(encode, X, rows=sketch.rows, strategy="loop"))
    torch.testing.assert_close(sketch.score(encode, X), by_rows)


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
    sketch = Sketch.fit(encode, x, 2)
    sketch.score(encode, x)
    assert torch.equal(x, X)


class InPlace(nn.Module):
    """Normalises images in place before the patch embedding, and rectifies its tokens in place."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, stride=4)
        self.rectify = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.rectify(self.patches(self.normalise(images))).square().mean((2, 3))

    def normalise(self, images: Tensor) -> Tensor:
        return images.sub_(0.5).div_(0.25)


class RectifiesTokens(InPlace):
    def normalise(self, images: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize(("kind", "stops_at_patches"), [(InPlace, False), (RectifiesTokens, True)])
def test_patches_of_an_image_that_was_written_into(kind: type[InPlace], stops_at_patches: bool) -> None:
    encode, x = kind(), torch.randn(5, 3, 8, 8)
    found = survey(encode, x).patch_layer
    assert found is (encode.patches if stops_at_patches else None)
    strategies: tuple[Strategy, ...] = ("auto", "loop", "jacrev", "replicate")
    grams = [jacobian_gram(encode, x, strategy=strategy) for strategy in strategies]
    encode.double()
    for gram in grams:
        assert_equals_reference(gram, lambda images: encode(images.clone()), x)


def force(inputs: Tensor) -> Tensor:
    """Part of the gradient of an energy with respect to the inputs."""
    with torch.enable_grad():
        inputs = inputs if inputs.requires_grad else inputs.clone().requires_grad_(True)
        energy = torch.tanh(inputs @ WEIGHT.to(inputs).T).square().sum()
        return torch.autograd.grad(energy, inputs, create_graph=True)[0][:, :4]


@pytest.mark.parametrize("strategy", ["auto", "loop", "replicate"])
def test_encoders_may_differentiate(strategy: Strategy) -> None:
    with torch.no_grad():
        assert_equals_reference(jacobian_gram(force, X[:5], strategy=strategy), force, X[:5])
    sketch = Sketch.fit(force, X, 2)
    assert not sketch.score(force, X[:3]).requires_grad


def test_a_patch_embedding_before_a_gradient() -> None:
    patches, x = nn.Conv2d(3, 5, 4, stride=4), torch.randn(4, 3, 8, 8)

    def encode(images: Tensor) -> Tensor:
        return force(patches(images).flatten(1)[:, :6])

    gram = jacobian_gram(encode, x)
    patches.double()
    assert_equals_reference(gram, encode, x)


def test_an_encoder_that_depends_on_grad_mode_is_not_random() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    layers, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(3, 4, 8)

    def encode(tokens: Tensor) -> Tensor:  # without gradients, padded positions are set to 0
        padded = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        padded[:, -1] = True
        return layers(tokens, src_key_padding_mask=padded).mean(1)

    with pytest.warns(UserWarning, match="where gradients are off"):
        gram, z = gram_and_embedding(encode, x)
    torch.testing.assert_close(z.float(), encode(x))
    layers.double()
    assert_equals_reference(gram, encode, x)


@pytest.mark.parametrize("identity", [nn.Identity(), nn.Flatten(), lambda x: x])
@pytest.mark.parametrize("strategy", ["auto", "loop", "replicate", "jacrev", "forward"])
def test_the_identity_has_a_jacobian(identity: Encode, strategy: Strategy) -> None:
    gram = jacobian_gram(identity, X[:3], strategy=strategy)
    assert torch.equal(gram, torch.eye(6, dtype=torch.float64).expand(3, 6, 6))


def test_integers_and_complex_numbers_are_refused_in_one_sentence() -> None:
    images = torch.zeros(3, 6, dtype=torch.uint8)
    for call in (jacobian_gram, jepa_score, EmbeddingReference.measure):
        with pytest.raises(ValueError, match=r"inputs are torch.uint8.*x\.float\(\)"):
            call(lambda x: x.float(), images)
    with pytest.raises(ValueError, match=r"inputs are torch\.complex64"):
        jepa_score(torch.view_as_real, X[:, :4].to(torch.complex64))
    with pytest.raises(ValueError, match=r"embeddings are torch\.int64"):
        jepa_score(lambda x: x.long(), X)
    with pytest.raises(ValueError, match=r"embeddings are torch.complex64.*view_as_real"):
        jepa_score(lambda x: torch.complex(x, x.sin()), X)
