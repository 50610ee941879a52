"""Gram matrices against float64 autograd, and in the contexts where a Jacobian silently goes wrong."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from jepa_monitor import jacobian_gram


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


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 4), (4, 12)], ids=["K<D", "K>D"])
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_equals_float64_autograd(inputs: int, outputs: int, chunk: int) -> None:
    mlp, x = make_mlp(inputs, outputs), torch.randn(7, inputs)
    gram, z = jacobian_gram(mlp, x, chunk=chunk)
    torch.testing.assert_close(z.float(), mlp(x))
    torch.testing.assert_close(gram, reference_gram(mlp, x), rtol=1e-5, atol=1e-6)


def test_vision_transformer_with_fused_attention() -> None:
    vit = timm.create_model("test_vit", img_size=32, num_classes=0).eval()
    x = torch.randn(2, 3, 32, 32)
    gram, _ = jacobian_gram(vit, x)
    expected = reference_gram(vit, x)
    torch.testing.assert_close(gram, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_same_where_gradients_are_off(context: type) -> None:
    mlp = make_mlp(6, 3)
    x = torch.randn(5, 6)
    expected, _ = jacobian_gram(mlp, x)
    with context():
        gram, _ = jacobian_gram(mlp, torch.randn_like(x).copy_(x))
    assert torch.equal(gram, expected)
    assert float(gram.abs().min()) > 0.0


def test_autocast_is_switched_off() -> None:
    mlp, x = make_mlp(6, 3), torch.randn(5, 6)
    expected, _ = jacobian_gram(mlp, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram, _ = jacobian_gram(mlp, x)
    assert torch.equal(gram, expected)


def test_rows_combine_outputs() -> None:
    mlp, x, rows = make_mlp(6, 5), torch.randn(4, 6), torch.randn(2, 5)
    gram, _ = jacobian_gram(mlp, x)
    sketched, _ = jacobian_gram(mlp, x, rows=rows)
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
