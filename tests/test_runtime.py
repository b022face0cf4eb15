"""Devices: what is there, what is asked for, and which errors mean memory."""

from __future__ import annotations

import time
from threading import Event

import pytest
import torch

from napari_restore import runtime
from napari_restore.errors import DeviceError
from napari_restore.inference.predictor import load_predictor
from napari_restore.models.catalog import find_model

SEVERAL, ONE, MAC, NONE = ("cuda:0", "cuda:1", "cpu"), ("cuda", "cpu"), ("mps", "cpu"), ("cpu",)


@pytest.mark.parametrize(
    ("present", "asked", "expected"),
    [
        (NONE, "auto", "cpu"),
        (ONE, "auto", "cuda"),
        (SEVERAL, "auto", "cuda:0"),
        (MAC, "auto", "mps"),
        (SEVERAL, "cpu", "cpu"),
        (SEVERAL, "cuda", "cuda"),
        (SEVERAL, "cuda:1", "cuda:1"),
        (ONE, "cuda:0", "cuda"),
        (MAC, "mps", "mps"),
        (("xpu:0", "xpu:1", "cpu"), "auto", "xpu:0"),
        (("xpu", "cpu"), "xpu:0", "xpu"),
    ],
)
def test_devices_resolve(
    present: tuple[str, ...], asked: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "available_devices", lambda: present)
    assert runtime.resolve_device(asked) == expected


@pytest.mark.parametrize(
    ("present", "asked"),
    [(NONE, "cuda"), (ONE, "cuda:1"), (SEVERAL, "mps"), (MAC, "tpu"), (NONE, ""), (NONE, None)],
)
def test_a_device_that_is_not_there_is_named_with_those_that_are(
    present: tuple[str, ...], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "available_devices", lambda: present)
    with pytest.raises(DeviceError) as caught:
        runtime.resolve_device(asked)
    assert f"'{asked}'" in str(caught.value)
    assert all(name in str(caught.value) for name in ("auto", *present))


def test_the_cpu_is_always_there_and_last() -> None:
    assert runtime.available_devices()[-1] == "cpu"
    assert runtime.resolve_device("auto") == runtime.available_devices()[0]


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [("cuda", 1, ("cuda", "cpu")), ("xpu", 2, ("xpu:0", "xpu:1", "cpu")), ("mps", 1, MAC)],
)
def test_cards_of_every_maker_are_found(
    kind: str, count: int, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"is_available": True, "current_accelerator": torch.device(kind), "device_count": count}
    for name, value in found.items():
        monkeypatch.setattr(torch.accelerator, name, lambda value=value: value)
    assert runtime.available_devices() == expected


def test_the_cpu_computes_in_a_type_that_torch_knows() -> None:
    assert runtime.autocast_dtype("cpu") in (None, torch.bfloat16)


def test_networks_follow_the_number_of_threads(mono_model: str) -> None:
    """Also one whose thread has computed before with another number."""
    built = load_predictor(find_model("deblur", 1, mono_model), "cpu")

    def threads() -> int:
        return int(built._run(lambda: torch.tensor(torch.get_num_threads())))

    before = threads()
    try:
        for count in (3, 1, 2):
            runtime.use_threads(count)
            assert threads() == count
    finally:
        runtime.use_threads(before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("required rank 4 tensor to use channels_last memory format"), False),
        (ValueError("out of memory"), False),
        (OSError("Cannot allocate memory"), False),
    ],
    ids=repr,
)
def test_only_memory_errors_are_memory_errors(error: Exception, expected: bool) -> None:
    assert runtime.is_out_of_memory(error) is expected


def test_torch_that_cannot_be_loaded_is_explained_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise OSError("[WinError 1114] A dynamic link library (DLL) initialization routine failed")

    monkeypatch.setattr(runtime, "import_module", fail)
    with pytest.raises(DeviceError, match=r"WinError 1114.*napari-restore gui"):
        _ = runtime.torch.Tensor


def test_functions_run_side_by_side_each_with_one_thread():
    threads = []

    def square(number):
        threads.append(torch.get_num_threads())
        return number**2

    functions = [lambda number=number: square(number) for number in range(5)]
    assert runtime.side_by_side(functions) == [0, 1, 4, 9, 16]
    assert runtime.side_by_side([]) == []
    assert set(threads) == {1}


def test_what_waits_for_several_functions_ends_them_all():
    begun, ended = Event(), []

    def wait_for_the_end():
        begun.set()
        try:
            while True:
                runtime.check()
                time.sleep(0.001)
        except runtime.Stopped:
            ended.append(True)
            raise

    def stop(done):
        begun.wait()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.side_by_side([wait_for_the_end], stop)
    assert ended == [True]
