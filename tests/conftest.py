"""Settings for all tests."""

import os

import torch


def pytest_configure() -> None:
    # Several test processes share few cores, and small networks gain nothing from more threads.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
