"""Settings for all tests."""

import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)  # several test processes share few cores, and small networks gain nothing from more
