"""Facts of encoders, and refusals of those that have no Jacobian of their own for each sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, jacobian_gram, jepa_score
from jepa_monitor.density import Strategy, gram_and_embedding
from jepa_monitor.density.survey import survey
from tests.monitor.density.helpers import X, assert_equals_reference, make_mlp, vision_transformer


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


def test_refuses_batch_statistics_that_see_the_order_of_two_samples_alone() -> None:
    ordered = torch.tensor([[3.0, 4.0], [1.0, 2.0]])  # and half of the second is smaller than the first too
    for x in (ordered, ordered[:1], ordered.flip(0)):
        with pytest.raises(ValueError, match="mixes the samples of a batch"):
            jacobian_gram(nn.BatchNorm1d(2), x)


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


@pytest.mark.parametrize("measure", [jepa_score, jacobian_gram, EmbeddingReference.measure])
@pytest.mark.parametrize("size", [(3, 8, 8), (1, 8, 8)])
def test_one_image_in_the_place_of_a_batch_is_named(measure: Callable[..., object], size: tuple[int, ...]) -> None:
    encode = nn.Sequential(nn.Conv2d(size[0], 2, 8), nn.Flatten())
    with pytest.raises(ValueError, match=r"one sample, not a batch: pass x\[None\]"):
        measure(encode, torch.randn(size))
    with pytest.raises(ValueError, match=r"inputs are torch.uint8; .* pass x.float\(\)"):
        measure(encode, torch.zeros(4, *size, dtype=torch.uint8))


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


def test_refuses_tokens() -> None:
    with pytest.raises(ValueError, match="pool its tokens"):
        jacobian_gram(lambda x: x.unsqueeze(1).expand(-1, 3, -1), torch.randn(4, 6))


def test_refuses_detached_embeddings() -> None:
    with pytest.raises(ValueError, match="detach"):
        jacobian_gram(lambda x: x.detach(), torch.randn(4, 6))


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


def test_memory_that_does_not_suffice_is_not_taken_for_a_wrong_shape() -> None:
    def hungry(x: Tensor) -> Tensor:
        if len(x) > 1:
            raise torch.OutOfMemoryError("two samples do not fit")
        return x.flatten(1)

    with pytest.raises(torch.OutOfMemoryError, match="two samples do not fit"):
        jacobian_gram(hungry, torch.randn(4, 3))
