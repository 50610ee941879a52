"""The studies of docs/studies: each is measured on made readings, and its page shows what its kept rows give."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import studies
import torch
import trainings
from study import drawing, jacobian, rows
from study.readings import Encoder, Reading, Samples, folder_of, losses, read
from study.scores import norm_spread, norm_spread_of_gaussian, ranking
from torch import Tensor

from jepa_train.module import JEPA

ROOT = Path(__file__).resolve().parents[1]
READ = [name for name in studies.STUDIES if name != "jacobian"]
every_study = pytest.mark.parametrize("name", studies.STUDIES)


def samples(count: int, shift: float = 0.0) -> Samples:
    """Embeddings of a linear encoder: all Gram matrices differ by a scale."""
    z = torch.randn(count, 3) + shift
    return Samples(z, z.double().norm(dim=1).add(1.0)[:, None, None] * torch.eye(3, dtype=torch.float64))


def kept(output: Samples) -> dict[str, Tensor]:
    return {name: value for of in ("z", "tokens") for name, value in ((of, output.z), (f"{of} gram", output.gram))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two seeds of all runs that are read."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    flat = {name: [1.0] * 936 for name in ("loss", "loss_tokens", "loss_embedding", "loss_anticollapse")}
    for encoder in (encoder for name in READ for encoder in studies.STUDIES[name].encoders):
        for seed in range(2):
            own = folder_of(encoder.run, seed, folder)
            own.mkdir(exist_ok=True)
            probe, real = samples(60), encoder.run == "fashion_mnist"
            found = {"reference": {"z": torch.randn(90, 3), "tokens": torch.randn(90, 3)}, "probe": kept(probe)}
            found["truths"] = {} if real else {"factors": -probe.z.square().sum(1)}
            found["sets"] = {"mnist": kept(samples(20, shift=3.0))} if real else {}
            torch.save(found, own / f"{encoder.checkpoint}.pt")
            (own / "losses.json").write_text(json.dumps(flat))
            (own / "seconds.json").write_text("1.0")
    return folder


@pytest.mark.parametrize("name", READ)
def test_a_study_measures_every_seed_that_is_there_and_draws_it(name: str, runs: Path, tmp_path: Path) -> None:
    study = studies.STUDIES[name]
    found = studies.measure(study, 3, runs)
    assert {row["seed"] for row in found} == {0, 1}
    assert len(found) == 2 * len(study.encoders)
    rows.write(found, tmp_path / "rows.json")
    found = rows.read(tmp_path / "rows.json")
    assert "| 2 |" in study.tables(found)
    drawing.save(study.draw(found), tmp_path / "figure.png")


def test_volumes_of_a_subspace_are_compared_with_the_exact_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jacobian, "NUM_IMAGES", 12)
    monkeypatch.setattr(jacobian, "NUM_REFERENCE", 60)
    torch.manual_seed(0)
    tiny = {"encoder_overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "patch_size": 8, "projector_hidden": 8}
    module = JEPA(image_size=16, channels=1, embedding_size=8, **tiny)
    folder = folder_of("mixture r=4 K=8", 0, tmp_path)
    folder.mkdir()
    weights = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(weights | {"pytorch-lightning_version": "2.6.6"}, folder / "last.ckpt")
    found = jacobian.measure(Encoder("8", "mixture r=4 K=8"), 0, tmp_path)
    agreement = {row["method"]: row["agreement"] for row in found}
    assert list(agreement) == list(jacobian.METHODS)
    assert agreement["exact"] == 1.0
    assert agreement["subspace"] > 0.9
    assert found[0]["share"] == 1.0
    assert "K = 8: exact" in jacobian.tables(found)
    drawing.save(jacobian.draw(found), tmp_path / "figure.png")


def test_the_density_that_embeddings_have_ranks_where_the_gaussian_does_not() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[-4.0, 0.0], [4.0, 0.0]])
    reference, z = (centres[torch.randint(2, (count,))] + torch.randn(count, 2) for count in (8000, 200))
    truth = torch.logsumexp(-0.5 * torch.cdist(z, centres).square(), dim=1)
    flat = torch.eye(2, dtype=torch.float64).expand(200, 2, 2)
    values = ranking(Reading(reference, Samples(z, flat), truth, {}))
    assert values["rank"] == 2
    assert values["own"] > 0.95
    assert values["gaussian"] < 0.7
    assert math.isnan(values["Eq. 5"])  # all volumes are equal


def test_the_norm_of_a_gaussian_spreads_as_expected() -> None:
    torch.manual_seed(0)
    assert norm_spread_of_gaussian(1) == pytest.approx(math.sqrt(math.pi / 2 - 1))
    for size in (2, 16):
        assert norm_spread(torch.randn(20_000, size)) == pytest.approx(norm_spread_of_gaussian(size), rel=0.03)


def test_rows_come_back_as_they_were_but_for_digits(tmp_path: Path) -> None:
    rows.write([{"label": "a", "seed": 0, "value": 0.123456, "none": math.nan}], tmp_path / "rows.json")
    (row,) = rows.read(tmp_path / "rows.json")
    assert row["value"] == 0.1235
    assert math.isnan(row["none"])
    assert rows.values([row], "none", label="a") == []
    assert rows.cell([0.9, 0.8, 0.85]) == "0.85 (0.8-0.9)"


def test_configs_of_all_trainings_exist() -> None:
    for training in trainings.TRAININGS.values():
        words = trainings.arguments_of(training, 0, Path("folder"))
        for before, word in itertools.pairwise(words):
            assert before != "-c" or Path(word).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study K=8", "study supervised"])
def test_a_training_keeps_losses_and_readings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "NUM_REFERENCE_OF_STUDY", 40)
    monkeypatch.setattr(trainings, "NUM_PROBE_OF_STUDY", 4)
    training = trainings.TRAININGS[name]
    short = " --trainer.max_epochs=1 --data.num_train=256 --data.batch_size=128"
    own = folder_of(name, 0, tmp_path)
    own.mkdir()
    trainings.train(replace(training, options=training.options + short, steps=(0,)), 0, own)
    first, last = (read(Encoder("", name, checkpoint), 0, tmp_path) for checkpoint in ("step_0", "last"))
    assert first.reference.shape == last.reference.shape == (40, 8)
    assert last.probe.gram.shape == (4, 8, 8)
    assert not torch.equal(first.reference, last.reference)
    assert math.isfinite(losses(Encoder("", name), 0, tmp_path)["loss"])
    assert losses(Encoder("", name, "step_0"), 0, tmp_path) == {}


@every_study
def test_every_study_reads_trainings_that_are_listed(name: str) -> None:
    assert {encoder.run for encoder in studies.STUDIES[name].encoders} <= set(trainings.TRAININGS)


def test_tables_stand_between_the_marks_of_their_study() -> None:
    page = "<!-- size -->\nold\n\nolder\n<!-- end -->\n<!-- volume -->\nkept\n<!-- end -->\n"
    expected = "<!-- size -->\n| \\1 |\n<!-- end -->\n<!-- volume -->\nkept\n<!-- end -->\n"
    assert studies.with_tables(page, "size", "| \\1 |") == expected
    assert studies.with_tables(expected.replace("| \\1 |\n", ""), "size", "| \\1 |") == expected


@pytest.mark.parametrize("kept", sorted((ROOT / "docs" / "studies").glob("*.json")), ids=lambda path: path.stem)
def test_each_page_shows_what_the_kept_rows_print(kept: Path) -> None:
    page = kept.with_suffix(".md").read_text()
    assert studies.STUDIES[kept.stem].tables(rows.read(kept)) in page
    figure = ROOT / "docs" / "images" / "studies" / f"{kept.stem}.png"
    assert f"images/studies/{figure.name}" in page
    assert figure.stat().st_size <= drawing.LARGEST
