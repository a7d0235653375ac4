"""What the driver says is held on a GPU counts against the cap, context included."""

import os
from types import SimpleNamespace

import pytest

from edge_train.errors import TrainingStopped
from edge_train.memory import gpu as gpu_memory
from edge_train.memory.gpu import BY_GROWTH, BY_PROCESS, describe, open_gpu_memory
from edge_train.memory.guard import Guard

MEGABYTE = 10**6


class FakeDriver:
    """Stands for NVML: two GPUs, processes by GPU, and what each GPU holds."""

    def __init__(self):
        self.processes = [[], []]
        self.used = [300 * MEGABYTE, 0]
        self.loaded = ""

    def load(self, name):
        self.loaded = name
        return SimpleNamespace(
            nvmlInit_v2=lambda: 0,
            nvmlDeviceGetCount_v2=self._count,
            nvmlDeviceGetHandleByIndex_v2=self._handle,
            nvmlDeviceGetMemoryInfo=self._memory,
            nvmlDeviceGetComputeRunningProcesses_v3=self._list,
        )

    def _count(self, count):
        count._obj.value = len(self.used)
        return 0

    def _handle(self, index, handle):
        handle._obj.value = index.value + 1
        return 0

    def _memory(self, handle, memory):
        memory._obj.used_bytes = self.used[handle.value - 1]
        return 0

    def _list(self, handle, count, found):
        for place, (pid, held) in enumerate(self.processes[handle.value - 1]):
            found[place].pid, found[place].used_bytes = pid, held
        count._obj.value = len(self.processes[handle.value - 1])
        return 0


def test_our_processes_are_summed_over_gpus_and_others_left_out():
    driver = FakeDriver()
    gpu = open_gpu_memory(load=driver.load)
    assert driver.loaded == "libnvidia-ml.so.1"
    driver.processes = [[(1, 900 * MEGABYTE), (os.getpid(), 500 * MEGABYTE)], [(os.getpid(), 7)]]
    assert gpu.sample() == 500 * MEGABYTE + 7
    assert gpu.source == BY_PROCESS
    driver.processes = [[(1, 900 * MEGABYTE)], []]
    assert gpu.sample() == 0
    assert gpu.most() == 500 * MEGABYTE + 7


@pytest.mark.parametrize("listed", [[], [(4_000_000, 10**9)], [(os.getpid(), 2**64 - 1)]])
def test_where_our_processes_are_not_known_it_is_the_growth_of_what_gpus_hold(listed):
    driver = FakeDriver()
    driver.processes[0] = listed
    gpu = open_gpu_memory(load=driver.load)
    assert gpu.sample() == 0
    driver.used = [450 * MEGABYTE, 50 * MEGABYTE]
    assert (gpu.sample(), gpu.source) == (200 * MEGABYTE, BY_GROWTH)


def test_a_run_whose_context_exceeds_the_cap_is_stopped_though_its_tensors_fit():
    driver = FakeDriver()
    gpu = open_gpu_memory(load=driver.load)
    guard = Guard(400 * MEGABYTE, lambda: 100 * MEGABYTE, driver_bytes=gpu.most)
    assert guard.check(0).peak_bytes == 100 * MEGABYTE
    driver.processes[0] = [(os.getpid(), 450 * MEGABYTE)]
    with pytest.raises(
        TrainingStopped, match=r"step 1: the run, on the GPU, held 450 MB, the cap is 400 MB.*--mem"
    ):
        guard.check(1)


def test_an_engine_that_counts_nothing_is_judged_by_the_driver():
    guard = Guard(None, lambda: 0, driver_bytes=lambda: 5 * MEGABYTE)
    assert guard.usage().peak_bytes == 5 * MEGABYTE


def test_without_a_driver_or_with_one_that_fails_there_is_nothing_to_ask():
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    assert open_gpu_memory(load=missing) is None
    assert open_gpu_memory(load=lambda name: SimpleNamespace(nvmlInit_v2=lambda: 9)) is None
    driver = FakeDriver()
    driver.used, driver.processes = [], []
    assert open_gpu_memory(load=driver.load) is None
    assert describe(missing).startswith("gpu memory: no NVIDIA driver answers")
    assert "2 GPU(s), contexts included" in describe(FakeDriver().load)


def test_a_driver_that_stops_answering_does_not_stop_the_run():
    driver = FakeDriver()
    gpu = open_gpu_memory(load=driver.load)
    driver.processes[0] = [(os.getpid(), 3 * MEGABYTE)]
    assert gpu.sample() == 3 * MEGABYTE
    driver._memory = None
    gpu._nvml.nvmlDeviceGetMemoryInfo = lambda *_: 15
    gpu._list = lambda *_: 15
    gpu.source = BY_GROWTH
    assert (gpu.sample(), gpu.peak_bytes) == (0, 3 * MEGABYTE)


def test_the_structures_are_as_large_as_the_drivers():
    assert gpu_memory.ctypes.sizeof(gpu_memory._Process) == 24
    assert gpu_memory.ctypes.sizeof(gpu_memory._Memory) == 24
