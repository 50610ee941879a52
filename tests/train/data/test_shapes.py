"""Shapes: reproducible, of known density, with views that share their content and nothing else."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_monitor import jacobian_gram
from jepa_train.data import ShapesDataModule
from jepa_train.data.blobs import NUISANCES, log_content_volume, render_blobs
from jepa_train.data.resumable import DrawnPerEpoch
from jepa_train.data.shapes import ShapesDataset, ShapeViews
from jepa_train.errors import ConfigurationError

FEW = {"num_train": 24, "num_probe": 8, "batch_size": 4}


def few(**settings: Any) -> ShapesDataModule:
    return ShapesDataModule(**(FEW | settings))


def views_of(data: ShapesDataModule) -> ShapeViews:
    views = data.make_augmented()
    assert isinstance(views, ShapeViews)
    return views


def test_samples_are_images_with_the_component_as_label() -> None:
    probe = few(image_size=16, latent_size=3, num_components=2).make_probe()
    assert probe.images.shape == (8, 1, 16, 16)
    assert probe.images.dtype == torch.float32
    assert (probe.content.shape, probe.nuisance.shape) == ((8, 3), (8, NUISANCES))
    assert set(probe.labels.tolist()) <= {0, 1}


def test_the_same_seed_is_the_same_data() -> None:
    for make in (ShapesDataModule.make_train, ShapesDataModule.make_probe):
        first, again, other = make(few()), make(few()), make(few(seed=5))
        assert torch.equal(first.images, again.images)
        assert not torch.equal(first.images, other.images)
    assert not torch.equal(few().make_train().content[:8], few().make_probe().content)


def test_both_truths_are_known_of_each_sample() -> None:
    data = few()
    probe = data.make_probe()
    assert list(probe.log_densities) == ["manifold", "content"]
    content = data.shapes.latents.log_density(probe.content)
    assert torch.equal(probe.log_densities["content"], content)
    volume = log_content_volume(partial(render_blobs, image_size=24), probe.content, probe.nuisance)
    torch.testing.assert_close(probe.log_densities["manifold"], content - volume)


def test_nuisance_that_is_not_drawn_is_not_projected_out() -> None:
    probe = few(shift=0.0, contrast=0.0, background=0.0).make_probe()
    assert not probe.nuisance.any()

    def alone(content: Tensor, _: Tensor) -> Tensor:
        return render_blobs(content, content.new_zeros(len(content), NUISANCES), image_size=24)

    volume = log_content_volume(alone, probe.content, torch.zeros(8, 0, dtype=torch.float64))
    torch.testing.assert_close(probe.log_densities["content"] - probe.log_densities["manifold"], volume)


def test_a_change_of_variables_from_an_embedding_that_knows_the_content_arrives_at_the_manifold() -> None:
    """z is an invertible map of the content that least squares read off an image, whatever its nuisance."""
    data = few()
    probe, latents = data.make_probe(), data.shapes.latents
    mixes = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for content, nuisance, truth in zip(
        probe.content.split(1), probe.nuisance.split(1), probe.log_densities["manifold"], strict=True
    ):
        both = torch.cat([content, nuisance], 1)
        image = render_blobs(content, nuisance, image_size=24)
        jacobian = torch.autograd.functional.jacobian(
            lambda both: render_blobs(both[:, :4], both[:, 4:], image_size=24).flatten(), both
        )
        reads = torch.linalg.pinv(jacobian[:, 0])

        def encode(images: Tensor, image: Tensor = image, both: Tensor = both, reads: Tensor = reads) -> Tensor:
            found = both + (images - image).flatten(1) @ reads.T
            return torch.sinh(found[:, :4] / 4.0) @ mixes.T

        log_p_z = latents.log_density(content) - (torch.cosh(content / 4.0) / 4.0).log().sum() - mixes.det().abs().log()
        score = log_p_z + 0.5 * torch.logdet(jacobian_gram(encode, image))
        torch.testing.assert_close(score[0], truth, rtol=0.0, atol=1e-6)


def test_views_share_the_content_and_vary_all_else() -> None:
    data = few(noise=0.0)
    views = views_of(data)
    torch.manual_seed(0)
    sample = views[3]
    assert not torch.equal(sample["image"], sample["view_b"])
    # by themselves, the drawn factors give both views again
    torch.manual_seed(0)
    nuisance = data.shapes.draw_nuisance(2)
    assert (nuisance[0] != nuisance[1]).all()
    content = views.drawn.content[3].expand(2, -1)
    expected = render_blobs(content, nuisance, image_size=24).float()
    torch.testing.assert_close(torch.stack([sample["image"], sample["view_b"]]), expected, rtol=0.0, atol=1e-5)


def test_nuisance_fills_its_ranges() -> None:
    data = few(shift=0.1, contrast=0.2, background=0.4, num_train=4000)
    largest = data.make_train().nuisance.abs().amax(0)
    torch.testing.assert_close(largest.float(), torch.tensor([0.1, 0.1, 0.2, 0.4, 0.4, 0.4]), rtol=0.01, atol=0.0)


def test_noise_is_drawn_anew_for_each_view() -> None:
    still = {"shift": 0.0, "contrast": 0.0, "background": 0.0}
    noisy = views_of(few(noise=0.5, **still))[0]
    difference = noisy["image"] - noisy["view_b"]
    assert float(difference.std()) == pytest.approx(0.5 * 2**0.5, rel=0.1)
    quiet = views_of(few(noise=0.0, **still))[0]
    assert torch.equal(quiet["image"], quiet["view_b"])


def test_training_draws_are_a_function_of_seed_epoch_and_index() -> None:
    data = few()
    loader: Any = data.train_dataloader()
    first = next(iter(loader))
    assert first["image"].shape == first["view_b"].shape == (4, 1, 24, 24)
    again = next(iter(few().train_dataloader()))
    assert torch.equal(first["view_b"], again["view_b"])
    drawn = DrawnPerEpoch(views_of(data), seed=0)
    assert torch.equal(drawn[(2, 1)]["image"], drawn[(2, 1)]["image"])
    assert not torch.equal(drawn[(2, 1)]["image"], drawn[(2, 2)]["image"])


@pytest.mark.parametrize("image_size", [7, 24])
def test_a_batch_is_rendered_at_once_as_its_samples_are_one_by_one(
    image_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = DrawnPerEpoch(views_of(few(image_size=image_size)), seed=0)
    keys = [(index, epoch) for epoch in (0, 3) for index in range(20)]
    alone = [drawn[key] for key in keys]
    sizes = []

    def counted(content: Tensor, nuisance: Tensor, *, image_size: int) -> Tensor:
        sizes.append(len(content))
        return render_blobs(content, nuisance, image_size=image_size)

    monkeypatch.setattr("jepa_train.data.shapes.render_blobs", counted)
    together = drawn.__getitems__(keys)
    assert sizes == [2 * len(keys)]
    for one, other in zip(together, alone, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_resumed_in_mid_epoch_renders_the_batches_that_are_left(workers: int) -> None:
    whole = list(few().train_dataloader())
    loader: Any = few(num_workers=workers).train_dataloader()
    loader.load_state_dict({**loader.state_dict(), "batches": 4})
    left = list(loader)
    assert len(left) == 2
    for one, other in zip(left, whole[4:], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("image", "view_b", "label"))


def test_the_reference_is_of_the_contents_that_are_trained_on() -> None:
    data = few()
    reference = data.reference_dataset()
    assert isinstance(reference, ShapesDataset)
    assert views_of(data).drawn is reference


@pytest.mark.parametrize("name", ["shift", "contrast", "background", "noise", "num_train", "num_probe"])
def test_a_number_that_cannot_work_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        few(**{name: -1})


def test_there_are_four_factors_at_most() -> None:
    with pytest.raises(ConfigurationError, match=r"^shapes have up to 4 content factors, not 5\."):
        few(latent_size=5)


def benchmark(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_neither_a_gaussian_on_the_content_nor_a_model_of_pixels_ranks_either_truth() -> None:
    data = few(num_train=2000, num_probe=400)
    found = benchmark("shapes").rankings(data.make_train(), data.make_probe(), axes=[16], components=[8])
    content = found.pop(("one Gaussian, true content", "content"))
    assert 0.5 < content < 0.75
    by_pixels = {key: value for key, value in found.items() if "true content" not in key[0]}
    assert len(by_pixels) == 2 * 7
    assert max(by_pixels.values()) < 0.65


def test_the_change_of_an_embedding_with_content_is_that_of_its_jacobian() -> None:
    probe = few().make_probe()
    reads = torch.randn(24 * 24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def encode(images: Tensor) -> Tensor:
        return torch.tanh(images.flatten(1) @ reads / 50.0)

    noise = probe.images.double() - render_blobs(probe.content, probe.nuisance, image_size=24)
    found = benchmark("shape_parts").log_change_with_content(encode, probe)
    for index in range(3):
        content, nuisance, own = (part[index : index + 1] for part in (probe.content, probe.nuisance, noise))

        def shown(content: Tensor, nuisance: Tensor = nuisance, own: Tensor = own) -> Tensor:
            return encode(render_blobs(content, nuisance, image_size=24) + own)[0]

        change = torch.autograd.functional.jacobian(shown, content)[:, 0]
        torch.testing.assert_close(found[index], 0.5 * torch.logdet(change.T @ change), rtol=0.0, atol=1e-6)
