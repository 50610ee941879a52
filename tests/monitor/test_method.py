"""Embeddings, features and Gram matrices of a shard against those of its samples, one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jepa_monitor import jacobian_gram
from jepa_monitor.method import EMBEDDED_A_PASS, Method
from jepa_monitor.probe.shards import Shard

COUNT = EMBEDDED_A_PASS + 7  # more than one pass


def method(**settings: Any) -> tuple[nn.Module, Method]:
    encode = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)).double()
    return encode, Method(encode=encode, to_device=Tensor.double, device=torch.device("cpu"), **settings)


def test_samples_come_back_in_the_order_of_their_indices() -> None:
    encode, read = method()
    inputs, order = torch.randn(COUNT, 5), torch.randperm(COUNT)
    found = read.embeddings(Shard(order, inputs[order]))
    torch.testing.assert_close(found, encode(inputs.double()).detach())


def test_features_are_the_embeddings_where_no_others_are_known() -> None:
    inputs = Shard(torch.arange(COUNT), torch.randn(COUNT, 5))
    _, read = method()
    torch.testing.assert_close(read.features(inputs), read.embeddings(inputs))
    _, read = method(represent=lambda x: 2.0 * x)
    torch.testing.assert_close(read.features(inputs), 2.0 * inputs.inputs.double())


def test_a_function_of_gram_matrices_is_gathered_result_by_result() -> None:
    seen: list[int] = []
    encode, read = method(chunk=4, progress=seen.append)
    inputs = torch.randn(9, 5)
    grams = jacobian_gram(encode, inputs.double())
    found = read.map_grams(lambda gram: (gram[:, 0], gram.logdet()), Shard(torch.arange(9), inputs))
    torch.testing.assert_close(found, (grams[:, 0], grams.logdet()))
    assert sum(seen) == 9
