"""The benchmark of detection: methods, comparison, null check and page, on made readings and a tiny encoder."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import detection
import numpy as np
import pytest
import torch
import trainings
from detect import comparison, objectives_page, page, resampling
from detect.methods import (
    BY_CLASS,
    DEFAULT,
    FLOWS,
    KNN,
    METHODS,
    Fitted,
    Method,
    scores,
    spectrum_statistics,
    two_sided,
)
from detect.readings import Reader, Reading, Samples, Settings, prepared
from detect.sets import INSIDE, NULL, SEVERE, Counts, draw, fashion_mnist
from scipy.stats import entropy
from sklearn.covariance import LedoitWolf
from study import drawing
from study.readings import folder_of
from torch import Tensor

from jepa_monitor.density import EmbeddingReference, gram_and_embedding, jepa_score, log_density
from jepa_monitor.ranking import auroc, auroc_null_interval, bootstrap_interval
from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from jepa_train.ranking import load_encoder
from tests.train.data.helpers import write_idx

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_FLOWS = tuple(method for method in METHODS if method not in FLOWS)
RANK = 2


def samples(count: int, shift: float = 0.0, *, size: float = 500.0) -> Samples:
    """Embeddings on a line in three dimensions, with made spectra, sizes and views."""
    z = torch.randn(count, 3) * torch.tensor([3.0, 1.0, 0.1]) + shift
    spectrum = (torch.randn(count, 3).double() + shift).sort(1, descending=True).values
    sizes = size + 50.0 * torch.randn(count).double()
    views = torch.randn(min(count, 30), 2).double()
    return Samples(z, sizes, spectrum[:, :RANK].sum(1), spectrum, spectrum, views)


def reading(**others: Samples) -> Reading:
    """A reading of what :func:`samples` makes, with two classes."""
    torch.manual_seed(0)
    z = samples(400).z
    sets = {INSIDE: samples(120), NULL: samples(120), **others}
    return Reading(z, (z[:, 0] > 0).long(), RANK, samples(100), sets)


def test_every_method_finds_what_is_far_away_and_none_tells_equals_apart() -> None:
    torch.manual_seed(1)
    found = dict(scores(reading(far=samples(120, shift=6.0)), WITHOUT_FLOWS))
    assert list(found) == [method.name for method in WITHOUT_FLOWS]
    low, high = auroc_null_interval(30, 30, level=0.999)
    for by_set in found.values():
        assert low < auroc(by_set[INSIDE], by_set[NULL]) < high
    for name in (DEFAULT, KNN, "Mahalanobis", "mixture alone", "Mahalanobis by class", "spectrum Gaussian"):
        assert auroc(found[name][INSIDE], found[name]["far"]) > 0.99, name
    # more volume, which one side takes for typical
    assert auroc(found["Eq. 5"][INSIDE], found["Eq. 5"]["far"]) < 0.01
    assert auroc(found["Eq. 5, two-sided"][INSIDE], found["Eq. 5, two-sided"]["far"]) > 0.99


@pytest.mark.slow
def test_a_flow_is_one_of_them_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = detection.scores.__globals__["FlowDensity"].fit
    monkeypatch.setattr("detect.methods.FlowDensity.fit", lambda z: fit(z, max_steps=20))
    assert [name for name, _ in scores(reading(), FLOWS)] == ["log_density, flow", "flow alone"]


def test_methods_without_their_measurements_are_left_out() -> None:
    bare = reading()
    nothing = {"spectrum": torch.empty(0, 0), "white": torch.empty(0, 0), "views": torch.empty(0, 2)}
    cut = {
        name: replace(
            of,
            **{key: value.new_empty(len(of.z), 0) for key, value in nothing.items() if key != "views"},
            views=nothing["views"],
        )
        for name, of in bare.sets.items()
    }
    calibration = replace(bare.calibration, spectrum=torch.empty(100, 0), white=torch.empty(100, 0))
    left = replace(bare, sets=cut, calibration=calibration, labels=torch.full((400,), -1))
    names = [name for name, _ in scores(left, WITHOUT_FLOWS)]
    assert {DEFAULT, KNN, "volume alone"} <= set(names)
    assert not {"Eq. 4", "Eq. 5", "log_density, gaussian", "spectrum Gaussian", BY_CLASS.name} & set(names)


def test_statistics_of_a_spectrum_are_those_of_scipy() -> None:
    spectrum = torch.randn(5, 4, dtype=torch.float64)
    squares = spectrum.exp().square().numpy()
    shares = squares / squares.sum(1, keepdims=True)
    expected = [spectrum.sum(1), 0.5 * np.log(squares.sum(1)), entropy(shares, axis=1), -np.log((shares**2).sum(1))]
    np.testing.assert_allclose(spectrum_statistics(samples(5).__class__(*[spectrum] * 6)), np.stack(expected, 1))


def test_the_bar_with_labels_is_the_nearest_mean_by_the_shared_covariance() -> None:
    made = reading()
    score = BY_CLASS.fit(Fitted(made))(made.sets[INSIDE])
    z, labels = made.reference.double().numpy(), made.labels.numpy()
    means = np.stack([z[labels == label].mean(0) for label in (0, 1)])
    shrunk = LedoitWolf(assume_centered=False).fit(z - means[labels])
    inside = made.sets[INSIDE].z.double().numpy()
    distances = np.stack([shrunk.mahalanobis(inside - mean + shrunk.location_) for mean in means])
    np.testing.assert_allclose(score, -0.5 * distances.min(0), rtol=1e-6)


def test_two_sides_are_measured_from_pictures_that_nothing_was_fitted_to() -> None:
    made = reading()
    one = Method("first", "nothing", lambda fitted: lambda of: of.z[:, 0])
    score = two_sided(one).fit(Fitted(made))
    usual = float(np.median(made.calibration.z[50:, 0]))
    np.testing.assert_allclose(score(made.sets[INSIDE]), -(made.sets[INSIDE].z[:, 0] - usual).abs(), atol=1e-6)


def size_alone(sizes: dict[str, Tensor]) -> list[dict[str, Any]]:
    return comparison.rows_of({"size": {name: -values for name, values in sizes.items()}}, sizes)


def test_a_method_that_measures_complexity_falls_to_chance_on_matched_pairs() -> None:
    torch.manual_seed(0)
    sizes = {INSIDE: torch.randn(1_000).double(), "other": 1.0 + torch.randn(1_000).double()}
    (row,) = size_alone(sizes)
    assert row["auroc"] > 0.7
    assert row["auroc"] == pytest.approx(auroc(-sizes[INSIDE], -sizes["other"]))
    expected = bootstrap_interval(auroc, -sizes[INSIDE], -sizes["other"], draws=300)
    np.testing.assert_allclose([row["auroc_low"], row["auroc_high"]], expected, atol=0.006)
    assert row["complexity"] == -1.0
    assert row["pairs"] > 200
    assert row["matched"] == pytest.approx(0.5, abs=0.01)
    assert row["aupr_out_trapezoidal"] != row["aupr_out_stepwise"]


def test_too_few_pairs_have_no_value() -> None:
    (row,) = size_alone({INSIDE: torch.arange(30.0), "other": 1000.0 + torch.arange(30.0)})
    assert row["pairs"] == 0
    assert math.isnan(row["matched"])


def test_differences_are_of_the_same_pictures() -> None:
    torch.manual_seed(0)
    sizes = {name: torch.randn(80) for name in (INSIDE, NULL, "other")}
    good = {name: torch.randn(80) - 2.0 * (name == "other") for name in sizes}
    scored = {DEFAULT: good, KNN: good, "Mahalanobis": {name: torch.randn(80) for name in sizes}}
    found = comparison.rows_of(scored, sizes)
    of = {row["method"]: row for row in found if row["set"] == "other"}
    same, better = of[comparison.difference_name(KNN)], of[comparison.difference_name("Mahalanobis")]
    assert same["auroc"] == same["auroc_low"] == same["auroc_high"] == 0.0
    assert better["auroc"] == pytest.approx(of[DEFAULT]["auroc"] - of["Mahalanobis"]["auroc"])
    assert 0.0 < better["auroc_low"] < better["auroc"] < better["auroc_high"]
    assert {row["set"] for row in found if row["method"] == comparison.difference_name(KNN)} == {"other"}


def kept(folder: Path, cheats: str = "", severe: tuple[str, ...] = ()) -> Path:
    """Keep rows of two outputs of an encoder and of its control in a folder of docs; one method may cheat."""
    torch.manual_seed(0)
    made = reading(MNIST=samples(60, shift=3.0), **{name: samples(20, shift=1.0) for name in severe})
    found = dict(scores(made, WITHOUT_FLOWS))
    if cheats:
        found[cheats] = {**found[cheats], INSIDE: found[cheats][INSIDE] + 100.0}
    rows = comparison.rows_of(found, {name: of.size for name, of in made.sets.items()})
    for name, control in (("fashion_mnist_0", ""), ("random_fashion_mnist_0", "fashion_mnist")):
        for output in ("z", "tokens"):
            encoder = detection.Encoder(name, name, "random" if control else "fashion_mnist", output, "auto", control)
            detection.write(encoder, made, rows, encoder.file("fashion_mnist", folder / "detection", ".json"))
    return folder


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resampling, "DRAWS", 5)
    return kept(tmp_path, severe=tuple(SEVERE))


@pytest.mark.slow
def test_kept_rows_are_printed_and_drawn_into_the_page(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [docs / "detection" / "fashion_mnist.md", docs / "detection.md"]
    for written in pages:
        written.write_text("# Page\n\n<!-- fashion_mnist -->\nstale line\n<!-- end -->\n")
    assert detection.main(["fashion_mnist", "--docs", str(docs)]) == 0
    shown = capsys.readouterr().out
    assert "log_density, random weights" in shown
    assert "- fashion_mnist, z: AUROC" in shown
    assert "against MNIST, reached (0.99 is the goal)" in shown
    excerpt = page.excerpt(detection.kept_rows("fashion_mnist", docs / "detection"))
    assert len(excerpt.splitlines()) == 2 + 2 * len(page.IN_EXCERPT)
    for written, tables in zip(pages, (shown.strip(), excerpt), strict=True):
        assert written.read_text() == f"# Page\n\n<!-- fashion_mnist -->\n{tables}\n<!-- end -->\n"
    for name in ("sets", "severities"):
        assert (docs / "images" / "detection" / f"fashion_mnist_{name}.png").stat().st_size <= drawing.LARGEST


def test_no_table_is_printed_where_a_method_has_seen_what_it_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "DRAWS", 2)
    assert detection.main(["fashion_mnist", "--docs", str(kept(tmp_path, cheats=KNN))]) == 1
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("no table, because the null check fails: kNN of fashion_mnist_0 (tokens) has AUROC 1.000")
    assert error.count("\n") == 1


def test_nothing_measured_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detection.main(["cifar10", "--docs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "nothing of cifar10 was measured so far: pass --runs or --encoder.\n"


@pytest.mark.parametrize(
    ("benchmark", "sentence"),
    [("cifar10", "CIFAR10 was not found below {}, in the folders"), ("imagenet", "{}/benchmark_imglist/imagenet/")],
)
def test_missing_images_are_one_sentence(
    benchmark: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [benchmark, "--root", str(tmp_path), "--docs", str(tmp_path), "--readings", str(tmp_path)]
    assert detection.main([*words, "--encoder", "random:test_vit"]) == 1
    out, error = capsys.readouterr()
    assert not out
    assert sentence.format(tmp_path) in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of a tiny encoder, and made images in ``images``."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    tiny = {"encoder_overrides": {"embed_dim": 8, "depth": 1, "num_heads": 2}, "patch_size": 14, "projector_hidden": 8}
    module = JEPA(image_size=28, channels=1, embedding_size=4, **tiny)
    own = folder_of("fashion_mnist", 0, folder)
    own.mkdir()
    weights = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(weights | {"pytorch-lightning_version": "2.6.6"}, own / "last.ckpt")
    (own / "seconds.json").write_text("1.0")
    write_idx(folder / "images" / "FashionMNIST" / "raw", seed=0)
    write_idx(folder / "images" / "MNIST" / "raw", seed=1)
    return folder


def test_a_reading_is_what_the_package_computes(runs: Path, tmp_path: Path) -> None:
    settings = Settings(Counts(reference=60, calibration=16, scored=6, severe=2), views=2, viewed=3)
    drawn = draw(fashion_mnist(runs / "images"), settings.counts, ["MNIST", "noise 5"])
    loaded = load_encoder(str(runs / "fashion_mnist_0" / "last.ckpt"))
    found = Reader(loaded.module, prepared(loaded, "timm"), torch.device("cpu"), settings).read(drawn)
    x = torch.stack([loaded.prepare(drawn.others["MNIST"][index][0]) for index in range(6)])
    mnist = found.sets["MNIST"]
    torch.testing.assert_close(mnist.z, gram_and_embedding(loaded.module, x)[1])
    torch.testing.assert_close(mnist.spectrum.sum(1), jepa_score(loaded.module, x))
    reference = EmbeddingReference.fit(found.reference)
    assert reference.rank == found.rank
    torch.testing.assert_close(
        Fitted(found).with_volume("manifold", mnist), log_density(loaded.module, x, reference=reference)
    )
    torch.testing.assert_close(
        Fitted(found).with_volume("gaussian", mnist),
        log_density(loaded.module, x, reference=reference, embedding_density="gaussian"),
    )
    assert (mnist.views.shape, found.sets["noise 5"].views.shape) == ((3, 2), (0, 2))
    assert bool((mnist.size > 50).all())
    found.save(tmp_path / "a.pt", settings)
    again = Reading.load(tmp_path / "a.pt", settings, drawn.sets)
    assert torch.equal(again.sets["MNIST"].white, mnist.white)
    assert torch.equal(again.labels, found.labels)
    with pytest.raises(ConfigurationError, match="was read with other settings or sets"):
        Reading.load(tmp_path / "a.pt", replace(settings, views=3), drawn.sets)


def test_fewer_images_may_get_a_jacobian(runs: Path) -> None:
    settings = Settings(Counts(reference=60, calibration=4, scored=6, severe=2), views=0)
    drawn = draw(fashion_mnist(runs / "images"), settings.counts, ["MNIST"])
    loaded = load_encoder(str(runs / "fashion_mnist_0" / "last.ckpt"))
    of = {
        measured: Reader(
            loaded.module, prepared(loaded, "timm"), torch.device("cpu"), replace(settings, measured=measured)
        ).read(drawn)
        for measured in (None, 3)
    }
    whole, few = (of[measured].sets["MNIST"] for measured in (None, 3))
    torch.testing.assert_close(few.z, whole.z)
    assert torch.equal(few.size, whole.size)
    torch.testing.assert_close(few.spectrum, whole.spectrum[:3])
    fitted = {measured: Fitted(found) for measured, found in of.items()}
    for name in ("manifold", "gaussian"):
        expected = fitted[None].with_volume(name, whole)[:3]
        torch.testing.assert_close(fitted[3].with_volume(name, few), expected, rtol=1e-4, atol=1e-4)


def test_differences_are_of_the_images_that_both_methods_scored() -> None:
    torch.manual_seed(0)
    sizes = {name: torch.randn(80) for name in (INSIDE, NULL, "other")}
    rival = {name: torch.randn(80) for name in sizes}
    ours = {name: rival[name][:30] for name in sizes}
    found = comparison.rows_of({DEFAULT: ours, KNN: rival}, sizes)
    (row,) = [row for row in found if row["method"] == comparison.difference_name(KNN)]
    assert row["auroc"] == row["auroc_low"] == row["auroc_high"] == 0.0


def test_too_small_a_reference_is_one_sentence(runs: Path) -> None:
    settings = Settings(Counts(reference=7, calibration=2, scored=2))
    drawn = draw(fashion_mnist(runs / "images"), settings.counts, ["MNIST"])
    loaded = load_encoder(str(runs / "fashion_mnist_0" / "last.ckpt"))
    with pytest.raises(ConfigurationError, match="7 reference images are too few for covariances of 4 coordinates"):
        Reader(loaded.module, prepared(loaded, "timm"), torch.device("cpu"), settings).read(drawn)
    with pytest.raises(ConfigurationError, match="OpenOOD's preparation makes 224 px"):
        prepared(loaded, "openood")


def test_openoods_preparation_crops_the_centre_of_a_larger_picture() -> None:
    loaded = load_encoder("random:test_vit", image_size=224)
    made = prepared(loaded, "openood").data_config
    assert (made["crop_pct"], made["interpolation"], made["input_size"]) == (0.875, "bilinear", [3, 224, 224])
    assert made["mean"] == loaded.preparation["mean"]


@pytest.mark.slow
def test_one_command_measures_runs_and_goes_on_where_it_was_stopped(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fashion_mnist", "--runs", str(runs), "--root", str(runs / "images"), "--sets", "MNIST", "--severe", "2"]
    words += ["--reference", "60", "--calibration", "30", "--scored", "20", "--viewed", "4", "--views", "2"]
    words += ["--readings", str(tmp_path / "readings"), "--docs", str(tmp_path)]
    assert detection.main(words) == 0
    first = capsys.readouterr().out
    kept = sorted(path.name for path in (tmp_path / "detection").iterdir())
    assert kept == [
        f"fashion_mnist.{name}.{output}.json"
        for name in ("fashion_mnist_0", "random_fashion_mnist_0")
        for output in ("tokens", "z")
    ]
    facts = json.loads((tmp_path / "detection" / kept[1]).read_text())["facts"]
    assert (facts["size"], facts["reference"], facts["label"]) == (4, 60, "fashion_mnist")
    monkeypatch.setattr(detection, "load_encoder", None)  # nothing is read again
    (tmp_path / "detection" / kept[0]).unlink()
    assert detection.main(words) == 0
    again = capsys.readouterr().out
    assert first[first.index("- fashion_mnist") :] == again[again.index("- fashion_mnist") :]


def test_an_encoder_that_has_collapsed_is_left_out(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "fashion_mnist_0" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    zeros = {name: torch.zeros_like(weight) for name, weight in checkpoint["state_dict"].items()}
    torch.save(checkpoint | {"state_dict": zeros}, tmp_path / "collapsed.ckpt")
    words = ["fashion_mnist", "--encoder", str(tmp_path / "collapsed.ckpt"), "--root", str(runs / "images")]
    words += ["--sets", "MNIST", "--reference", "60", "--calibration", "30", "--scored", "20", "--views", "0"]
    assert detection.main([*words, "--readings", str(tmp_path / "readings"), "--docs", str(tmp_path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [" is left out: " in error for error in errors] == [True, True, False]


@pytest.mark.slow
def test_many_encoders_are_measured_in_brief(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["objectives", "--runs", str(runs), "--root", str(runs / "images"), "--seeds", "1", "--measured", "8"]
    words += ["--reference", "60", "--calibration", "4", "--scored", "20", "--severe", "20"]
    words += ["--readings", str(tmp_path / "readings"), "--docs", str(tmp_path)]
    assert detection.main(words) == 0
    shown = capsys.readouterr().out
    assert "| fashion_mnist, tokens (1) |" in shown
    assert "**Forecasts of inversion**" in shown
    rows = detection.kept_rows("objectives", tmp_path / "detection")
    assert {row["set"] for row in rows} == {NULL, "MNIST", "digits", "upside down", "noise 3", "blur 3"}
    assert {row["count"] for row in rows if row["method"] == DEFAULT} == {8}
    assert {row["count"] for row in rows if row["method"] == KNN} == {20}
    assert "aupr_in_stepwise" not in rows[0]
    assert set(rows[0]["features"]) == {"Eq. 5", "log_density, gaussian"}


def test_runs_of_every_objective_are_measured_once_they_are_finished(tmp_path: Path) -> None:
    for name in ("objective vicreg", "fashion_mnist", "spoiled high rate"):
        for seed in (0, 1):
            own = folder_of(name, seed, tmp_path)
            own.mkdir()
            (own / "seconds.json").write_text("1.0")
    labels = {
        "fashion_mnist": ["fashion_mnist"],
        "objectives": ["fashion_mnist", "objective vicreg", "spoiled high rate"],
    }
    for benchmark, expected in labels.items():
        found = list(detection.of_runs(tmp_path, 3, [""], benchmark))
        assert {(encoder.label, encoder.name) for encoder in found if not encoder.control} == {
            (name, trainings.folder_name(name, seed)) for name in expected for seed in (0, 1)
        }
        assert [encoder.name for encoder in found if encoder.control] == ["random_fashion_mnist_0"] * 2
    only = detection.of_runs(tmp_path, 3, ["vicreg"], "objectives")
    assert {encoder.label for encoder in only} == {"objective vicreg"}


@pytest.mark.parametrize(
    "benchmark", sorted({path.name.split(".")[0] for path in (ROOT / "docs" / "detection").glob("*.json")})
)
def test_the_pages_show_what_the_kept_rows_print(benchmark: str) -> None:
    rows = detection.kept_rows(benchmark, ROOT / "docs" / "detection")
    assert not comparison.null_failures(rows)
    text = (ROOT / "docs" / "detection" / f"{benchmark}.md").read_text()
    first = (ROOT / "docs" / "detection.md").read_text()
    assert (objectives_page if benchmark == detection.OBJECTIVES else page).tables(rows) in text
    assert benchmark == detection.OBJECTIVES or page.excerpt(rows) in first
    for name in () if benchmark == detection.OBJECTIVES else page.figures(rows):
        figure = ROOT / "docs" / "images" / "detection" / f"{benchmark}_{name}.png"
        assert f"images/detection/{figure.name}" in first + text
        assert figure.stat().st_size <= drawing.LARGEST
