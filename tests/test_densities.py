"""The comparison of densities on made readings, and the volume along directions that are given."""

from __future__ import annotations

import json
from pathlib import Path

import densities
import pytest
import torch
from torch import Tensor, nn
from trainings import folder_name

from jepa_train.data.mixture import cosine_patterns

NAME = "mixture r=4 K=8"


def spread(count: int) -> dict[str, Tensor]:
    """Embeddings in four of eight directions, and Gram matrices that differ by a scale."""
    z = torch.randn(count, 4) @ torch.eye(4, 8)
    return {"z": z, "z gram": z.double().norm(dim=1).add(1.0)[:, None, None] * torch.eye(8, dtype=torch.float64)}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of one run that was read."""
    torch.manual_seed(0)
    parts = {name: spread(count) for name, count in (("reference", 600), ("probe", 60))}
    both = {
        name: found | {key.replace("z", "tokens"): value for key, value in found.items()}
        for name, found in parts.items()
    }
    folder = tmp_path / folder_name(NAME, 0)
    folder.mkdir()
    truth = 1.5 * parts["probe"]["z gram"][:, 0, 0].log() - 0.5 * parts["probe"]["z"].double().square().sum(1)
    torch.save(both | {"truths": {"factors": truth}, "sets": {}, "rank": 4}, folder / "last.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("option", "first", "names"),
    [
        ([], "(intrinsic dimension)", {"Eq. 5", "manifold + volume, own", "mixture + volume, white", "gaussian alone"}),
        (["--sensitivity"], "default", {"500 reference embeddings", "k = 20", "r = 3 for 4", "r = 5 for 4"}),
        (["--flow"], "flow alone", {"flow + volume, own"}),
    ],
)
def test_tables_are_printed_and_kept(
    option: list[str],
    first: str,
    names: set[str],
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(densities, "FLOW_STEPS", 2)
    kept = runs / "rows.json"
    densities.main([str(runs), *option, "--only", "r=4", "--json", str(kept)])
    printed = capsys.readouterr().out
    assert f"### {NAME}, z, seeds: 1" in printed
    found = json.loads(kept.read_text())[f"{NAME}, z"]
    assert next(iter(found)) == first
    assert names <= found.keys()
    for name in names:
        assert f"| {name} | {found[name][0]['spearman']:.3f} |" in printed


def test_the_volume_along_directions_is_that_of_a_linear_map() -> None:
    torch.manual_seed(0)
    patterns = cosine_patterns(3, image_size=6).float()
    encode = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    images = torch.randn(4, 1, 6, 6)
    found = densities.tangent_volume(encode, images, patterns)
    linear = encode[1].weight.double() @ patterns.flatten(1).T.double()
    expected = 0.5 * torch.logdet(linear.T @ linear)
    torch.testing.assert_close(found, expected.detach().expand(4), atol=1e-5, rtol=0.0)


def test_images_of_a_run_are_made_again_by_its_name() -> None:
    made = densities.mixture_of("mixture_r=2_K=2_separation_3_1")
    assert (made.mixture.patterns.shape[0], made.seed, made.image_size) == (2, 1, 16)
    assert torch.allclose(made.mixture.latents.means.norm(dim=1), torch.tensor(3.0).double())
