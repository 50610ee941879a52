"""Choosing what is measured, and leaving it as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from jepa_monitor import JEPAScoreMonitor, gaussianity_statistics, jepa_score
from jepa_monitor.density import EmbeddingReference
from jepa_monitor.evaluation import feature_statistics
from jepa_monitor.ranking import knn_distance
from jepa_monitor.runtime.encoder import (
    embed,
    resolve_encoder,
    resolve_encoders,
    resolve_features,
    resolve_preprocess,
    usual_encoder,
)
from jepa_monitor.runtime.pooling import channel_axis
from tests.monitor.evaluation.helpers import labelled_module
from tests.monitor.helpers import Autoencoder, images, loader


class Project(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def test_choices() -> None:
    project, x = Project().eval(), torch.randn(5, 4)
    encode, description = resolve_encoder(project, None, "auto")
    assert torch.equal(encode(x), project.backbone(x))
    assert description == "backbone (Sequential, found by its name)"
    encode, description = resolve_encoder(project, "backbone.0", "auto")
    assert torch.equal(encode(x), project.backbone[0](x))
    assert description == "backbone.0 (Linear)"
    encode, _ = resolve_encoder(project, lambda module, inputs: module.head(module.backbone(inputs)), "auto")
    assert torch.equal(encode(x), project(x))
    encode, description = resolve_encoder(nn.Linear(4, 2), None, "auto")
    assert encode(x).shape == (5, 2)
    assert description == "forward (Linear, as no submodule is named like an encoder)"


def part(*names: str) -> nn.Module:
    """A module with the submodules named, all of them linear."""
    module = nn.Module()
    for name in names:
        module.add_module(name, nn.Linear(4, 3))
    return module


class BackboneAndHead(nn.Module):
    """A wrapper such as DINO's, with logits behind the features."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 3)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        # lightly's DINO, iBOT, DINOv2 and CAPI
        (("student_backbone", "student_head", "teacher_backbone", "teacher_head"), "teacher_backbone"),
        # lightly's MoCo and BYOL: a moving average is the teacher
        (("backbone", "projection_head", "backbone_momentum", "projection_head_momentum"), "backbone_momentum"),
        (("encoder_q", "encoder_k"), "encoder_k"),
        (("encoder", "momentum_encoder"), "momentum_encoder"),
        (("encoder", "ema_encoder"), "ema_encoder"),
        (("encoder", "encoderEMA", "encoder_head"), "encoderEMA"),
        (("encoder_q", "projector"), "encoder_q"),
        # whole words, of any spelling
        (("planet", "magnet"), ""),
        (("normal_encoder", "norm"), "normal_encoder"),
        (("projected_encoder", "projector"), "projected_encoder"),
        (("studentEncoder", "studentHead"), "studentEncoder"),
        (("DINOv2Encoder", "encoder_pos"), "DINOv2Encoder"),
        (("teacherbackbone", "teacherhead"), "teacherbackbone"),
        (("encoders", "heads"), "encoders"),
        (("target_embed", "encoder"), "encoder"),
        (("embedding_net", "embedding"), "embedding_net"),
        (("FeatureExtractor", "Head"), "FeatureExtractor"),
        (("context_encoder", "target_encoder", "predictor"), "target_encoder"),
        (("encoder", "target_encoder"), "target_encoder"),
        (("teacher", "student"), "teacher"),
        (("student", "student_head"), "student"),
        (("encoder_norm", "encoder", "encoder_head"), "encoder"),
        (("resnet", "fc"), "resnet"),
        (("Backbone", "Head"), "Backbone"),
        # a head, or what only sounds like an encoder, is none
        (("teacher_head", "student_projector", "autoencoder", "target_predictor", "pos_encoder"), ""),
        (("vit", "fc"), ""),
    ],
)
def test_names_that_contain_the_usual_ones(names: tuple[str, ...], chosen: str) -> None:
    for order in (names, names[::-1]):
        path, reason = usual_encoder(part(*order))
        assert path == chosen
        assert reason.endswith("found by its name") == bool(chosen)


def test_a_module_without_weights_is_no_encoder_by_half_its_name() -> None:
    module = part("encoder")
    module.add_module("target_transform", nn.Identity())
    assert usual_encoder(module)[0] == "encoder"
    assert usual_encoder(nn.ModuleDict({"encoder": nn.Flatten()}))[0] == "encoder"


def test_a_table_of_embeddings_is_no_encoder_by_half_its_name() -> None:
    module = part("encoder")
    module.add_module("target_tokens", nn.Embedding(4, 3))
    assert usual_encoder(module)[0] == "encoder"


def test_the_reason_is_the_first_of_the_usual_names_on_the_path() -> None:
    module = nn.Module()
    module.model = nn.ModuleDict({"student": nn.Linear(4, 3), "teacher": nn.Linear(4, 3)})
    assert usual_encoder(module) == ("model.teacher", "found by its name")
    module.teacher = nn.ModuleDict({"backbone": nn.Linear(4, 3)})
    assert usual_encoder(module) == ("teacher.backbone", "found by its name")


def test_a_compiled_encoder_is_found_and_its_layout_known() -> None:
    project = nn.Module()
    project.encoder = torch.compile(nn.Conv2d(3, 5, 3))
    assert usual_encoder(project)[0] == "encoder"
    assert channel_axis(torch.Size([2, 5, 8, 5]), project.encoder) == 1


def test_the_backbone_before_the_head_within_a_submodule_too() -> None:
    x, project = torch.randn(5, 4), nn.Module()
    project.student, project.teacher = (BackboneAndHead(nn.Linear(3, 2048)) for _ in range(2))
    encode, description = resolve_encoder(project, None, "auto")
    assert torch.equal(encode(x), project.teacher.backbone(x))
    assert description == "teacher.backbone (Linear, found by its name)"
    project.teacher = BackboneAndHead(nn.Identity())
    assert usual_encoder(project)[0] == "teacher"
    # DINOv2 keeps its parts in a dictionary, which cannot be called
    project.teacher = nn.ModuleDict({"dino_head": nn.Linear(3, 2048), "backbone": nn.Linear(4, 3)})
    assert usual_encoder(project)[0] == "teacher.backbone"
    project.teacher = nn.ModuleDict({"dino_head": nn.Linear(3, 2048)})
    assert usual_encoder(project)[0] == "student.backbone"


def test_an_unknown_path_names_what_there_is() -> None:
    with pytest.raises(ValueError, match="submodules are: backbone, head"):
        resolve_encoder(Project(), "bakbone", "auto")


@pytest.mark.parametrize(
    "call", [gaussianity_statistics, EmbeddingReference.fit, lambda z: knn_distance(z, z), feature_statistics]
)
def test_complex_embeddings_are_refused_and_not_halved(call: Callable[[Tensor], Any]) -> None:
    z = torch.complex(torch.randn(9, 3), torch.randn(9, 3))
    for refused in (lambda: call(z), lambda: embed(lambda x: z, torch.ones(9, 3))):
        with pytest.raises(ValueError, match=r"complex64, not real numbers: pass torch\.view_as_real"):
            refused()


def test_what_writes_into_its_input_leaves_the_probe_whole() -> None:
    x = torch.randn(5, 4)
    before = x.clone()
    preprocess = resolve_preprocess(nn.Module(), lambda inputs: inputs.sub_(0.5).div_(0.25))
    for _ in range(2):
        assert torch.equal(preprocess(x), (before - 0.5) / 0.25)
    embed(lambda inputs: inputs.relu_(), x)
    jepa_score(nn.Linear(4, 2), x, views=lambda sample: sample.mul_(2.0), num_views=2)
    assert torch.equal(x, before)


def test_the_monitor_reports_a_wrong_rule_once_and_measures_the_right_volume() -> None:
    centres, project = torch.randn(3, 3), Autoencoder()

    def distances(module: nn.Module, inputs: Tensor) -> Tensor:
        return torch.cdist(module(inputs), centres.to(inputs), p=1.0)

    monitor = JEPAScoreMonitor(encoder=distances, probe=images(20), budget=None, on_error="raise")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, callbacks=[monitor], **quiet)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(project, loader())
    assert len([warning for warning in caught if "row by row" in str(warning.message)]) == 1
    assert len(monitor.history.steps) == 4
    project.double().eval()
    jacobian = torch.autograd.functional.jacobian(lambda x: distances(project, x).sum(0), images(20).double())
    expected = torch.linalg.svdvals(jacobian.flatten(2).permute(1, 0, 2)).clip(1e-6).log().sum(1)
    assert monitor.readings is not None
    torch.testing.assert_close(monitor.readings.scores.jepa_score, expected, rtol=1e-3, atol=1e-3)


def test_encoders_by_name() -> None:
    module, x = labelled_module().eval(), images(3)

    def names(encoder: Any, of: nn.Module = module) -> list[str]:
        return list(resolve_encoders(of, encoder, "auto"))

    assert names(None) == ["features", "embedding"]
    assert names(None, Autoencoder()) == ["features"]
    named = {"z": "forward", "early": "encoder", "method": "features", "mine": lambda m, x: m(x)}
    all_of_them = resolve_encoders(module, named, "auto")
    assert list(all_of_them) == ["z", "early", "method", "mine"]
    expected = {"z": module(x), "early": module.encoder(x), "method": module.features(x), "mine": module(x)}
    for name, (encode, _) in all_of_them.items():
        torch.testing.assert_close(encode(x), expected[name])
    assert [text for _, text in all_of_them.values()][:3] == ["forward", "encoder (Sequential)", "features"]
    with pytest.raises(ValueError, match="no submodule 'nowhere'"):
        names("nowhere")
    with pytest.raises(ValueError, match="empty mapping"):
        names({})


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.expand(-1, 3, -1, -1))  # (B, 3, 4, 5)


def test_a_submodule_by_name_says_where_its_channels_are() -> None:
    module = nn.Module()
    module.encoder = ChannelsLast()
    ((encode, _),) = resolve_encoders(module, "encoder", "auto").values()
    torch.testing.assert_close(encode(images(3)), module.encoder(images(3)).mean((1, 2)))


def test_features_that_are_the_usual_encoder_by_another_name_are_not_read_twice() -> None:
    class WithFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(4, 3)
            self.head = nn.Linear(3, 2)

        def features(self, x: Tensor) -> Tensor:
            return self.encoder(x)

    class Alias(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

        features = forward

    module = WithFeatures()
    assert resolve_features(module, "auto") is not None  # which may be anything
    module.features = module.head.forward
    assert resolve_features(module, "auto") is not None
    module.features = module.encoder.forward
    assert resolve_features(module, "auto") is None
    assert resolve_features(Alias(), "auto") is None
