"""The network of volumes: what it sees of a part of a volume."""

from __future__ import annotations

import pytest
import torch

from napari_restore.networks import volume_inverter
from napari_restore.networks.volume_inverter import VolumeInverter
from napari_restore.physics.deconvolution import Scale


@pytest.mark.parametrize("height", [96, 101])
def test_features_are_kept_of_some_rows_at_a_time(
    monkeypatch: pytest.MonkeyPatch, height: int
) -> None:
    torch.manual_seed(0)
    network = VolumeInverter(stages=(1, 2)).eval()
    torch.nn.init.normal_(network.last.weight, std=0.1)
    image, psf = torch.rand(5, height, 30), torch.full((3, 3, 3), 1 / 27)
    seen, real = [], VolumeInverter.merge

    def recorded(self: VolumeInverter, strip: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(strip.shape[-2])
        return real(self, strip, *rest)

    monkeypatch.setattr(VolumeInverter, "merge", recorded)
    with torch.inference_mode():
        whole = network(image, psf, torch.tensor(0.01), Scale(1.0))
        assert seen == [height]
        monkeypatch.setattr(volume_inverter, "STRIP", 5 * 30 * 16)
        strips = network(image, psf, torch.tensor(0.01), Scale(1.0))
    assert len(seen) > 3 and max(seen[1:]) <= 32
    torch.testing.assert_close(strips, whole, atol=1e-5, rtol=1e-5)
