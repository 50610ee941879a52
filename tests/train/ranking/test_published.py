"""Models that timm builds: by name without a network, with the weights of a file, and at random."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.published import build, check_is_published, is_timm_name, of_timm
from tests.train.ranking.helpers import written_weights


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit_small_patch14_dinov2.lvd142", r"no weights 'lvd142' of .*: there are vit_small_patch14_dinov2.lvd142m\."),
        ("vit_smal_patch14_dinov2", r"no timm model .*: names like it are vit_small_patch14_dinov2, "),
        ("vit_huge_patch14_gap", r"no timm model .*: names like it are vit_huge_patch14_gap_224\."),
        ("qqqqqqqqqqqqqqqq", r"no timm model .*: timm.list_pretrained\(\) returns those there are\."),
        ("coatnet_0_224", r"no weights of .* as coatnet_0_224=FILE, or random:coatnet_0_224"),
    ],
)
def test_a_name_without_weights_ends_in_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        check_is_published(name)


def test_names_of_files_are_no_names_of_timm() -> None:
    assert is_timm_name("resnet50")
    assert is_timm_name("resnet50.a1_in1k")
    assert not is_timm_name("resnet50.pth")
    check_is_published("resnet50.a1_in1k")


def test_weights_that_cannot_be_fetched_end_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigurationError,
        match=r"^the weights of test_vit.r160_in1k cannot be fetched \(.+\): run once .* test_vit.r160_in1k=FILE\.$",
    ):
        build("test_vit.r160_in1k", image_size=None)
    with pytest.raises(
        ConfigurationError, match=r"^the weights of hf-hub:timm/none cannot be fetched .* can be reached"
    ):
        build("hf-hub:timm/none", image_size=None)


def test_attempts_to_reach_the_hub_are_not_printed_beside_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, said = logging.getLogger("huggingface_hub"), logging.handlers.BufferingHandler(capacity=9)

    def unreachable(**arguments: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", unreachable)
    hub.addHandler(said)
    try:
        with pytest.raises(ConfigurationError, match="cannot be fetched"):
            build("test_vit.r160_in1k", image_size=None)
        assert not said.buffer
        logging.getLogger("huggingface_hub.utils._http").warning("of the user's own")
        assert said.buffer
    finally:
        hub.removeHandler(said)


def test_the_weights_of_a_file_are_the_models(tmp_path: Path) -> None:
    written = written_weights(tmp_path / "weights.safetensors")
    loaded = of_timm("test_vit.r160_in1k", "auto", None, weights=tmp_path / "weights.safetensors")
    images = torch.randn(2, 3, 160, 160)
    features = written.forward_head(written.forward_features(images), pre_logits=True)  # type: ignore[operator]
    assert torch.equal(loaded.module.eval()(images), features)
    assert list(loaded.data_config["input_size"]) == [3, 160, 160]


def test_a_pickled_file_is_read_without_running_code(tmp_path: Path) -> None:
    written = timm.create_model("test_vit")
    torch.save({"state_dict": written.state_dict()}, tmp_path / "weights.pth")
    model, _ = build("test_vit", image_size=None, weights=tmp_path / "weights.pth")
    assert torch.equal(model.cls_token, written.cls_token)
    torch.save({"state_dict": written.state_dict(), "code": Path}, tmp_path / "unsafe.pth")
    with pytest.raises(ConfigurationError, match=r"timm cannot build the encoder test_vit with .*weights_only"):
        build("test_vit", image_size=None, weights=tmp_path / "unsafe.pth")


def test_a_file_of_another_model_is_refused_and_never_leaves_weights_at_random(tmp_path: Path) -> None:
    written_weights(tmp_path / "other.safetensors", "test_vit2")
    with pytest.raises(ConfigurationError, match=r"timm cannot build the encoder test_vit with .*other.safetensors"):
        build("test_vit", image_size=None, weights=tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "nothing.safetensors")
    with pytest.raises(ConfigurationError, match=r"Missing key\(s\)"):
        build("test_vit", image_size=None, weights=tmp_path / "nothing.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match=r"timm cannot build the encoder test_vit with .*damaged"):
        build("test_vit", image_size=None, weights=tmp_path / "damaged.safetensors")


def test_another_size_interpolates_positions_and_is_prepared_so(tmp_path: Path) -> None:
    written = written_weights(tmp_path / "weights.safetensors")
    loaded = of_timm("test_vit", "mean", 96, weights=tmp_path / "weights.safetensors")
    assert list(loaded.data_config["input_size"]) == [3, 96, 96]
    assert loaded.module.eval()(torch.randn(1, 3, 96, 96)).shape == (1, 64)
    assert written.pos_embed.shape[1] == 101  # type: ignore[union-attr, index]
    assert loaded.module.model.pos_embed.shape[1] == 37  # type: ignore[union-attr, index]
    with pytest.raises(ConfigurationError, match=r"test_vit with .* at -20 px"):
        build("test_vit", image_size=-20, weights=tmp_path / "weights.safetensors")


def test_random_weights_are_always_the_same_and_draw_from_no_other_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (build("test_vit", image_size=None, pretrained=False)[0] for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.blocks[0].attn.qkv.weight, second.blocks[0].attn.qkv.weight)


def test_the_projection_of_clip_is_kept_or_not() -> None:
    name = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    for pooling, width in (("auto", 512), ("projection", 512), ("cls", 256)):
        loaded = of_timm(name, pooling, 32, pretrained=False)  # type: ignore[arg-type]
        assert loaded.module.eval()(torch.randn(1, 3, 32, 32)).shape == (1, width)
    assert any("2 directions" in note for note in loaded.notes)
