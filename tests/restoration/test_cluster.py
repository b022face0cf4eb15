"""A dask cluster of two real processes: the same results as without, also when one is killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

from napari_restore import RestoreError, restore
from napari_restore.cli import main
from napari_restore.errors import ClusterError
from napari_restore.image.layout import blocks
from napari_restore.restoration import cluster
from napari_restore.restoration.cluster import check_address, connect, on_client, survey
from napari_restore.restoration.run import begin, restore_array
from napari_restore.runtime import Watch
from planning import plan
from waiting import LIMIT, replaced, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def client(dask_cluster: Any) -> Iterator[Any]:
    with connect(dask_cluster.scheduler_address) as made:
        yield made


def gathered(results: Any, like: np.ndarray) -> np.ndarray:
    """Put blocks together; every sample has to come exactly once."""
    out, times = np.zeros_like(like), np.zeros(like.shape, int)
    for _, place, samples, _ in results:
        out[place] = samples
        times[place] += 1
    assert (times == 1).all()
    return out


def squares(image: np.ndarray, side: int = 60) -> list[Any]:
    """Blocks of a gray image, numbered."""
    return list(enumerate(blocks(image.shape, (side, side))))


# task, shape, dtype, chunks, options
CASES: dict[str, tuple[str, tuple[int, ...], str, tuple[int, ...], dict[str, Any]]] = {
    "mono": ("deblur", (150, 140), "u2", (75, 70), {"model": "mono_model"}),
    "color movie with common air": (
        *("dehaze", (3, 90, 80, 3), "u1", (1, 90, 40, 3)),
        {"model": "affine_model"},
    ),
    "two frames": ("motion_deblur", (3, 96, 100), "f4", (2, 96, 100), {"frames": 2}),
    "structures": ("dehaze", (120, 110), "f4", (60, 110), {"structure_size": 4}),
}


every_case = pytest.mark.parametrize(
    ("task", "shape", "dtype", "chunks", "options"),
    CASES.values(),
    ids=CASES,
    indirect=["options"],
)


@pytest.fixture
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a case, with the path of its small network."""
    given = dict(request.param)
    if "model" in given:
        given["model"] = request.getfixturevalue(given["model"])
    return given


def image_of(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Waves that move along the first axis, and noise."""
    rng = np.random.default_rng(7)
    places = np.indices(shape, float)
    wave = 100 + 50 * np.sin(places.sum(0) / 5) + rng.normal(0, 8, shape)
    return wave.clip(0, 255).astype(dtype)


@every_case
def test_lazy_results_of_a_cluster_are_the_local_ones(
    client: Any, task: str, shape: tuple, dtype: str, chunks: tuple, options: dict
) -> None:
    image = image_of(shape, dtype)
    lazy = restore(da.from_array(image, chunks=chunks), task, **options)
    expected = lazy.compute(scheduler="threads")
    assert not np.array_equal(expected, image)
    # In one graph, as dask does it for an active client; and bound to the client.
    np.testing.assert_array_equal(client.compute(lazy).result(), expected)
    bound = on_client(lazy, client)
    assert (bound.shape, bound.dtype, bound.chunks) == (lazy.shape, lazy.dtype, lazy.chunks)
    np.testing.assert_array_equal(bound[-1:, 3:].compute(), expected[-1:, 3:])


@every_case
def test_images_in_memory_are_restored_as_here(
    client: Any, task: str, shape: tuple, dtype: str, chunks: tuple, options: dict
) -> None:
    image = image_of(shape, dtype)
    decided = plan(image, task, tile=64, **options)
    seen: list[Any] = []
    far = Watch(seen.append).run(lambda: restore_array(image, decided, client=client))
    here = restore_array(image, decided)
    np.testing.assert_array_equal(far.data, here.data)
    assert (seen[-1].done, seen[-1].total) == (decided.layout.pixels,) * 2
    assert any("the workers" in step.message for step in seen)
    differing = {"seconds", "workers"}
    assert {k: v for k, v in far.provenance.items() if k not in differing} == {
        k: v for k, v in here.provenance.items() if k not in differing
    }
    assert far.provenance["workers"] == 2


def test_an_active_client_computes_lazy_arrays(mono_model: str, dask_cluster: Any) -> None:
    image, here = image_of((100, 90), "u2"), os.getpid()

    def elsewhere(block: np.ndarray) -> np.ndarray:
        assert os.getpid() != here
        return block

    expected = restore(da.from_array(image, chunks=50), "deblur", model=mono_model).compute(
        scheduler="threads"
    )
    with distributed.Client(dask_cluster.scheduler_address) as active:
        source = da.from_array(image, chunks=50).map_blocks(elsewhere, meta=image[:0, :0])
        np.testing.assert_array_equal(
            restore(source, "deblur", model=mono_model).compute(), expected
        )
        # What is on the workers already.
        brighter = 2 * image
        lazy = restore(
            active.persist(da.from_array(brighter, chunks=50)), "deblur", model=mono_model
        )
        expected = restore(brighter, "deblur", model=mono_model)
        np.testing.assert_array_equal(lazy.compute(), expected)


def test_a_killed_worker_costs_only_its_blocks(mono_model: str, client: Any) -> None:
    image = image_of((240, 240), "u2")
    run = begin(image, plan(image, "deblur", model=mono_model), client=client)
    expected = restore_array(image, run.plan).data
    victim = next(iter(client.run(os.getpid).values()))

    def killing(results: Any) -> Iterator[Any]:
        for number, item in enumerate(results):
            if number == 2:
                os.kill(victim, signal.SIGKILL)
            yield item

    with run.blocks(squares(image)) as results:
        np.testing.assert_allclose(gathered(killing(results), image), expected, atol=1)
    until(lambda: replaced(client, victim))


def test_a_worker_killed_while_an_image_in_memory_is_restored(mono_model: str, client: Any) -> None:
    image = image_of((240, 240), "u2")
    decided = plan(image, "deblur", tile=64, model=mono_model)
    victim = next(iter(client.run(os.getpid).values()))
    killed = []

    def kill(step: Any) -> None:
        if step.done and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(step.done)

    far = Watch(kill).run(lambda: restore_array(image, decided, client=client))
    assert 0 < killed[0] < image.size
    np.testing.assert_array_equal(far.data, restore_array(image, decided).data)
    client.wait_for_workers(2, timeout=LIMIT)


def test_results_come_in_order_where_that_is_asked(client: Any) -> None:
    def late(number: int) -> int:
        # The order is kept in any case; so it most likely has to be.
        time.sleep(0.2 if number % 2 == 0 else 0)
        return number

    submitted: list[int] = []

    def futures() -> Iterator[Any]:
        for number in range(8):
            submitted.append(number)
            yield number, client.submit(late, number, pure=False)

    taken = []
    for item in cluster.finished(client, futures(), 3, in_order=True):
        taken.append(item)
        # What is early waits on the workers, and counts as under way.
        assert len(submitted) <= len(taken) + 2
    assert taken == [(number, number) for number in range(8)]


def test_closing_the_generator_cancels_what_is_outstanding(mono_model: str, client: Any) -> None:
    def tasks(dask_scheduler: Any) -> set[Any]:
        return set(dask_scheduler.tasks)

    # Other tests share the cluster; what they have let go, it may hear of at any time.
    others = client.run_on_scheduler(tasks)
    image = image_of((240, 240), "u2")
    run = begin(image, plan(image, "deblur", model=mono_model), client=client)
    with run.blocks(squares(image)) as results:
        next(results)
        assert client.run_on_scheduler(tasks) - others
    until(lambda: client.run_on_scheduler(tasks) <= others)


def test_a_process_loads_a_model_and_finds_the_scale_once(
    mono_model: str, client: Any, tmp_path: Path
) -> None:
    def read(block: np.ndarray) -> np.ndarray:
        with (tmp_path / str(os.getpid())).open("a") as log:
            log.write("read\n")
        return block

    def reads() -> int:
        return sum(len(log.read_text().split()) for log in tmp_path.iterdir())

    source = da.from_array(image_of((160, 160), "u2"), chunks=80).map_blocks(read, dtype="u2")
    lazy = restore(source, "deblur", model=mono_model)
    first = client.compute(lazy).result()
    processes = len(list(tmp_path.iterdir()))
    # For the blocks, and in each process at most once for the sample, which is all of the image.
    assert 4 + 4 <= reads() <= 4 + 4 * processes
    before = reads()
    for _ in range(2):
        np.testing.assert_array_equal(client.compute(lazy).result(), first)
    assert reads() <= before + 2 * 4 + (4 if processes == 1 else 0)

    def loaded() -> tuple[int, int]:
        from napari_restore.inference import predictor

        return predictor._load.cache_info().misses, predictor._load.cache_info().currsize

    assert all(misses == size > 0 for misses, size in client.run(loaded).values())


def test_torch_takes_the_threads_of_a_worker(
    mono_model: str, client: Any, dask_cluster: Any
) -> None:
    def threads() -> int:
        import torch

        return torch.get_num_threads()

    before = threads()
    image = image_of((60, 60), "u2")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=3, processes=True, dashboard_address=":0"
        ) as wide,
        connect(wide.scheduler_address) as other,
    ):
        restore_array(image, plan(image, "deblur", model=mono_model), client=other)
        assert list(other.run(threads).values()) == [3]
    restore_array(image, plan(image, "deblur", model=mono_model), client=client)
    assert set(client.run(threads).values()) == {1}
    assert threads() == before


# ---------------------------------------------------------------- what goes wrong


def test_a_block_that_kills_workers_is_explained(client: Any) -> None:
    def allow(count: int) -> None:
        client.run_on_scheduler(
            lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", count)
        )

    allow(0)
    fatal = [((), client.submit(os._exit, 1, pure=False))]
    try:
        with pytest.raises(ClusterError, match=r"ended 1 worker.*--memory-limit"):
            list(cluster.finished(client, fatal))
    finally:
        allow(3)
    client.wait_for_workers(2, timeout=LIMIT)


def test_errors_of_a_task_come_as_they_are(client: Any) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise RestoreError("as it was said")

    broken = da.zeros((4, 4), chunks=2).map_blocks(fail, dtype=float, meta=np.zeros((0, 0)))
    with pytest.raises(RestoreError, match=r"^as it was said$"):
        np.asarray(on_client(broken, client))


@pytest.mark.parametrize("text", ["tcp://", "somewhere", "tcp://a b:80", "host:99999", "http:/x:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ClusterError, match=f"'{text}' is not the address.*tcp://HOST:8786"):
        connect(text)


@pytest.mark.parametrize("text", ["tcp://host:8786", "host:8786", " tls://10.0.0.1:1 ", "[::1]:80"])
def test_what_is_an_address(text: str) -> None:
    assert check_address(text) == text.strip()


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"No dask scheduler answers at {address}.*dask sched"):
        connect(address, timeout=0.5)


def test_distributed_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r'pip install "napari-restore\[distributed\]"'):
        connect("tcp://127.0.0.1:8786")


def test_versions_differ(dask_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_restore.restoration.cluster.installed_version", lambda: "9.9.9")
    with (
        connect(dask_cluster.scheduler_address) as client,
        pytest.raises(ClusterError, match=r"napari-restore is .* on worker .* 9\.9\.9 here"),
    ):
        survey(client)
    told = distributed.Client.get_versions

    def other(self: Any, **options: Any) -> Any:
        versions = told(self, **options)
        versions["scheduler"]["packages"]["dask"] = "2019.1"
        return versions

    monkeypatch.setattr(distributed.Client, "get_versions", other)
    with pytest.raises(ClusterError, match=r"dask is 2019\.1 on the scheduler of tcp"):
        connect(dask_cluster.scheduler_address)


def test_a_cluster_without_workers_or_without_the_device(client: Any) -> None:
    with pytest.raises(ClusterError, match=r"Worker tcp.*Device 'cuda:7' is not available"):
        survey(client, "cuda:7")
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        connect(empty.scheduler_address) as alone,
        pytest.raises(ClusterError, match=r"has no workers.*dask worker tcp"),
    ):
        survey(alone)


def test_the_last_worker_leaves(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    monkeypatch.setattr(cluster, "_BEAT", 0.05)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        connect(empty.scheduler_address) as alone,
        pytest.raises(ClusterError, match="has had no workers for"),
    ):
        list(cluster.finished(alone, [((), alone.submit(os.getpid))]))


def test_the_scheduler_goes_away() -> None:
    lazy = restore(da.zeros((40, 40), chunks=20), "deblur")
    empty = distributed.LocalCluster(n_workers=0, dashboard_address=":0")
    with connect(empty.scheduler_address) as alone:
        bound = on_client(lazy, alone)
        empty.close()
        until(lambda: alone.status != "running")
        with pytest.raises(ClusterError, match="connection to the dask scheduler"):
            bound[:5, :5].compute()


# ---------------------------------------------------------------- the command line


def test_the_command_line_restores_on_a_cluster(
    mono_model: str, dask_cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = image_of((150, 140), "u2")
    np.save(tmp_path / "in.npy", image)
    command = [
        "deblur",
        str(tmp_path / "in.npy"),
        "--tile",
        "64",
        "--model",
        mono_model,
        "--scheduler",
    ]
    assert main([*command, dask_cluster.scheduler_address, "-o", str(tmp_path / "out.npy")]) == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npy"), restore(image, "deblur", tile=64, model=mono_model)
    )
    assert "2 workers" in capsys.readouterr().out


def test_the_command_line_explains_what_is_wrong_with_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "in.npy", image_of((20, 20), "u2"))
    command = ["deblur", str(tmp_path / "in.npy"), "-o", str(tmp_path / "out.npy")]
    assert main([*command, "--scheduler", "nowhere"]) == 2
    assert "'nowhere' is not the address of a dask scheduler" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()
