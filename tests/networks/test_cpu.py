"""The quick way on processors: the same numbers, each row computed once, on any number of cores."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_restore.networks import cpu, motion_estimator
from napari_restore.networks.cpu import FEWEST_CHANNELS, WinogradConv2d, with_winograd
from napari_restore.networks.motion_estimator import CepstralEstimator
from napari_restore.networks.resunet import ResUNet
from napari_restore.runtime import Stopped, Watch, use_threads
from rounding import rounding, terms_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Levels of several depths; 64 channels are enough for minimal filtering.
NETWORKS: dict[str, dict[str, object]] = {
    "three levels": {
        "widths": (8, 12, 64),
        "encoder_blocks": (1, 2),
        "middle_blocks": 2,
        "decoder_blocks": (2, 1),
    },
    "one level": {
        "widths": (64,),
        "encoder_blocks": (),
        "middle_blocks": 1,
        "decoder_blocks": (),
    },
    "levels without blocks": {
        "widths": (6, 8, 8, 64),
        "encoder_blocks": (0, 0, 1),
        "middle_blocks": 0,
        "decoder_blocks": (1, 0, 0),
    },
    "mean kept, pixels as they are": {
        "widths": (64, 64),
        "encoder_blocks": (1,),
        "middle_blocks": 1,
        "decoder_blocks": (1,),
        "unshuffle": 1,
        "keep_mean": True,
    },
}


def network(options: Mapping[str, object], **further: object) -> ResUNet:
    """A network with random weights that changes an image as much as its own size."""
    torch.manual_seed(0)
    built = ResUNet(channels=2, estimates=1, **options, **further).eval()
    torch.nn.init.normal_(built.ending.weight, std=0.1)
    return built.to(memory_format=torch.channels_last)


def whole(built: ResUNet, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return built(image)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 2), (16, 3), (33, 2)], ids=str)
@pytest.mark.parametrize("strip", [1, 10**5], ids=["short strips", "longer ones"])
def test_rows_give_what_the_whole_gives(
    name: str, size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "STRIP_BYTES", strip)
    built = network(NETWORKS[name])
    least = max(8, built.multiple_of)
    image, terms = torch.rand(2, 2, *(least * count for count in size)), terms_of(built)
    expected, deep = whole(built, image), built.encode(image)[0]
    with_winograd(built)
    assert any(isinstance(part, WinogradConv2d) for part in built.modules()) == (
        name != "levels without blocks"
    )
    with torch.inference_mode():
        found, features = built(image), cpu.stream_deep_features(built, image)
        estimates = built.estimate(image)
    assert (expected - image).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(terms, expected))
    torch.testing.assert_close(features, deep, rtol=0, atol=rounding(terms, deep))
    assert estimates.shape == (2, 2, 1, *deep.shape[2:])


def test_each_row_is_asked_for_once_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "STRIP_BYTES", 1)
    built = network(NETWORKS["three levels"], extra=3)
    image, beside = torch.rand(1, 2, 200, 24), torch.rand(1, 3, 200, 24)
    asked = []

    def further(top: int, bottom: int) -> torch.Tensor:
        asked.append((top, bottom))
        return beside[:, :, top:bottom]

    with torch.inference_mode():
        found = built(image, further)
    assert [top for top, _ in asked] == [0, *(bottom for _, bottom in asked[:-1])]
    assert asked[-1][1] == 200
    assert max(bottom - top for top, bottom in asked) == 32
    expected = whole(built, torch.cat([image, beside], 1))
    atol = rounding(terms_of(built), expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.usefixtures("one_thread")  # several end in any order
def test_it_is_told_how_far_the_rows_are_and_they_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "STRIP_BYTES", 1)
    built, image = network(NETWORKS["three levels"]), torch.rand(1, 2, 200, 24)
    watch, until, shares = Watch(), 2.0, []

    def further(top: int, bottom: int) -> torch.Tensor:
        shares.append(watch.share)
        if watch.share > until:
            watch.stop()
        return image[:, :0, top:bottom]

    with torch.inference_mode():
        alone = built(image)
        torch.testing.assert_close(watch.run(built, image, further), alone, rtol=0, atol=0)
        assert watch.share == 1
        assert shares == sorted(shares)
        assert len(set(shares)) > 3
        watch, until = Watch(), 0.3
        shares.clear()
        with pytest.raises(Stopped):
            watch.run(built, image, further)
        assert max(shares) < 0.7
        torch.testing.assert_close(built(image), alone, rtol=0, atol=0)


def test_results_of_one_image_outlive_the_next() -> None:
    built = with_winograd(network(NETWORKS["three levels"]))
    images = torch.rand(2, 1, 2, 64, 64)
    with torch.inference_mode():
        first = built(images[0])
        kept = first.clone()
        built(images[1])
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_reduced_precision_goes_by_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "STRIP_BYTES", 1)
    built, image = network(NETWORKS["three levels"]), torch.rand(1, 2, 96, 40)
    with torch.autocast("cpu", torch.bfloat16):
        expected = whole(built, image)
        with torch.inference_mode():
            found = built(image)
    assert found.dtype == torch.float32
    # Each layer keeps eight bits of what it gives; the sums are in float32.
    layers = sum(isinstance(part, torch.nn.Conv2d) for part in built.modules())
    atol = rounding(layers, expected, torch.bfloat16)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert (found - image).abs().max() > 0.3


def test_normalized_networks_go_whole() -> None:
    built = network(NETWORKS["three levels"], normalize=True)
    image = torch.rand(1, 2, 64, 40)
    with torch.inference_mode():
        expected = whole(built, image)
        atol = rounding(terms_of(built), expected)
        torch.testing.assert_close(built(image), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("portion", [1, 2, 5, 16])
def test_the_gauge_measures_some_rows_of_cells_at_a_time(
    portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion_estimator, "_CELL_ROWS", portion)
    torch.manual_seed(0)
    gauge = CepstralEstimator().eval()
    layers = [part.weight for part in gauge.modules() if hasattr(part, "weight")]
    terms = max(gauge.into_lags.shape) + sum(weight[0].numel() for weight in layers)
    for rows in (1, 3, 11):
        image = torch.rand(1, 1, 16 * rows, 80)
        with torch.no_grad():
            expected = gauge(image)
        with torch.inference_mode():
            found = gauge(image)
        torch.testing.assert_close(found, expected, rtol=0, atol=rounding(terms, expected))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(3)
    yield
    use_threads(before)


@pytest.mark.parametrize("name", NETWORKS)
def test_threads_change_no_bit(
    name: str, monkeypatch: pytest.MonkeyPatch, three_threads: None
) -> None:
    monkeypatch.setattr(cpu, "STRIP_BYTES", 1)
    built = with_winograd(network(NETWORKS[name]))
    image = torch.rand(1, 2, 40 * built.multiple_of, 8 * built.multiple_of)
    with torch.inference_mode():
        several, deep = built(image), cpu.stream_deep_features(built, image)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        torch.testing.assert_close(several, built(image), rtol=0, atol=0)
        torch.testing.assert_close(deep, cpu.stream_deep_features(built, image), rtol=0, atol=0)


def test_images_that_come_at_once_are_as_each_alone(three_threads: None) -> None:
    built = with_winograd(network(NETWORKS["three levels"]))
    images = torch.rand(4, 2, 3 * built.multiple_of, 5 * built.multiple_of)
    with torch.inference_mode():
        together = built.change(images)
        assert torch.get_num_threads() == 3
        for found, image in zip(together.split(1), images.split(1), strict=True):
            torch.testing.assert_close(found, built.change(image), rtol=0, atol=0)


def test_images_that_come_at_once_are_computed_at_once(
    monkeypatch: pytest.MonkeyPatch, three_threads: None
) -> None:
    """None of three goes on before all of them have begun."""
    built, together = network(NETWORKS["one level"]), threading.Barrier(3, timeout=60)
    alone = cpu.stream_change

    def wait_for_the_others(*arguments: Any) -> torch.Tensor:
        together.wait()
        return alone(*arguments)

    monkeypatch.setattr(cpu, "stream_change", wait_for_the_others)
    with torch.inference_mode():
        assert built.change(torch.rand(3, 2, 16, 16)).shape == (3, 2, 16, 16)


@pytest.mark.parametrize("at_once", [False, True], ids=["of the source", "of one stage"])
def test_stages_work_at_the_same_time(at_once: bool, three_threads: None) -> None:
    """The second stage has the first rows only while the first stage has the second rows."""
    meeting, found = threading.Barrier(2, timeout=120), []

    class First:
        def push(self, x: torch.Tensor, last: bool) -> list[cpu.Rows]:
            if last:
                meeting.wait()
            return [(x, last)]

    class Second:
        def push(self, x: torch.Tensor, last: bool) -> list[cpu.Rows]:
            if not last:
                meeting.wait()
            return [(x, last)]

    class Splits:
        def push(self, x: torch.Tensor, last: bool) -> list[cpu.Rows]:
            return both

    both = [(torch.zeros(1), False), (torch.ones(1), True)]
    source = iter([(torch.zeros(2), True)] if at_once else both)
    stages = [*([Splits()] if at_once else []), First(), Second()]
    cpu.Chain(stages, source, lambda x: found.append(float(x[0]))).run()
    assert found == [0, 1]


def test_rows_keep_their_order_however_many_a_stage_gives(three_threads: None) -> None:
    """A stage may keep its rows for a while, or give several portions of them."""
    found = []

    class Gives:
        def __init__(self, counts: list[int]) -> None:
            self.counts, self.kept = iter(counts), []

        def push(self, x: torch.Tensor, last: bool) -> list[cpu.Rows]:
            self.kept.append(x)
            count = len(self.kept) if last else next(self.counts)
            given, self.kept = self.kept[:count], self.kept[count:]
            return [(part, last and part is given[-1]) for part in given]

    stages = [Gives([0, 0, 3, *[1] * 47]), Gives([1, 0, 2, 0, 0, 3, *[0] * 44]), Gives([1] * 50)]
    source = ((torch.full((1,), float(n)), n == 50) for n in range(51))
    cpu.Chain(stages, source, lambda x: found.append(float(x[0]))).run()
    assert found == list(range(51))


@pytest.mark.parametrize("bad", [0, 7, 99])
@pytest.mark.parametrize("where", ["in a stage", "in the source"])
def test_an_error_is_raised_and_ends_the_threads(bad: int, where: str, three_threads: None) -> None:
    def fail_at(number: float, place: str) -> None:
        if number == bad and place == where:
            raise MemoryError("no room")

    class Stage:
        def push(self, x: torch.Tensor, last: bool) -> list[cpu.Rows]:
            fail_at(float(x), "in a stage")
            return [(x, last)]

    def source() -> Iterator[cpu.Rows]:
        for number in range(100):
            fail_at(number, "in the source")
            yield torch.tensor(float(number)), number == 99

    found = []
    with pytest.raises(MemoryError, match="no room"):
        cpu.Chain([Stage()] * 4, source(), found.append).run()
    assert len(found) <= bad
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 3), (64, 33), (7, 130)], ids=str)
@pytest.mark.parametrize("channels", [(96, 96), (96, 128)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(
    size: tuple[int, int], channels: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1, bias=bias)
    image = torch.randn(2, channels[0], *size)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = image.contiguous(memory_format=memory_format)
        with torch.inference_mode():
            expected, found = conv(given), WinogradConv2d(conv)(given)
        assert found.shape == expected.shape
        atol = rounding(terms_of(conv), expected)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(96, 96, 1),
        nn.Conv2d(96, 96, 3),
        nn.Conv2d(96, 96, 3, padding=1, stride=2),
        nn.Conv2d(96, 96, 3, padding=1, groups=96),
        nn.Conv2d(96, 96, 3, padding=2, dilation=2),
        nn.Conv2d(96, 96, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(FEWEST_CHANNELS - 1, 96, 3, padding=1),
        nn.ReLU(),
    ],
    ids=str,
)
def test_other_layers_stay(other: nn.Module) -> None:
    network = nn.Sequential(other, nn.Sequential(nn.Conv2d(96, 96, 3, padding=1)))
    with_winograd(network)
    assert network[0] is other
    assert isinstance(network[1][0], WinogradConv2d)


@pytest.mark.parametrize("height", [3, 8, 21])
def test_large_images_are_convolved_in_bands(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv, image = nn.Conv2d(96, 96, 3, padding=1), torch.randn(2, 96, height, 10)
    quick = WinogradConv2d(conv)
    with torch.inference_mode():
        expected = quick(image)
        monkeypatch.setattr(cpu, "_FRAME_BYTES", 1)
        found = quick(image)
    atol = rounding(terms_of(conv), expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
