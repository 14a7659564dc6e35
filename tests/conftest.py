"""Settings for all tests."""

import os

import pytest
import torch


def pytest_configure() -> None:
    # Several test processes share few cores, and small networks gain nothing from more threads.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


FULL_PRODUCTS = (
    # each has a cheaper neighbour of the same mechanism in `make test`
    "test_planner.py::test_the_batch_is_split_where_nothing_else_fits",
    "test_planner.py::test_cascades_fit",
    "test_planner.py::test_more_memory_is_less_time",
    *(
        f"test_planner.py::test_the_predicted_peak_is_that_of_a_real_step[{case}]"
        for case in ("tokens", "cascades, lean", "AugLocal, lean", "bf16", "EMA copies", "DGL, balanced")
    ),
    "test_planner.py::test_no_equal_groups_that_fit_are_much_faster[lean-4]",
    "test_planner.py::test_no_equal_groups_that_fit_are_much_faster[lean-10]",
    "test_planner.py::test_a_prediction_in_the_callers_autocast_does_not_count_the_recompute_plan",
    *(
        f"test_recorded_numbers.py::test_peak_and_arithmetic_are_at_most_the_recorded_ones[{rule}]"
        for rule in ("man(infopro 2c2f)", "hpff(infopro 2c2f)", "infopro 2c2f", "hpff(dgl)", "mlaan(dgl)", "predsim")
    ),
    "test_interrupt.py::test_a_stopped_run_resumes_bit_for_bit[15-130]",
    "test_interrupt.py::test_a_stopped_run_resumes_bit_for_bit[9--9]",
    *(
        f"test_every_rule_conforms[{check}-HPFF paper]"
        for check in ("compiled_trains", "memory_does_not_grow", "loss_falls_on_digits")
    ),
    "test_every_rule_conforms[compiled_trains-MAN]",
    "test_every_rule_conforms[memory_does_not_grow-MAN]",
    "test_networks_of_every_family_conform[mobilenet-compiled_trains]",
    "test_networks_of_every_family_conform[convnext-compiled_trains]",
    "test_networks_of_every_family_conform[convnext-memory_does_not_grow]",
    "test_networks_of_every_family_are_loaded_by_torchvision_or_timm_alone",
    "test_layers_are_those_of_the_papers_for_cifar[resnet152]",
    "test_layers_are_those_of_the_papers_for_cifar[resnet101]",
    "test_layers_are_those_of_the_papers_for_cifar[resnext101_32x8d]",
    "test_layers_are_those_of_the_papers_for_imagenet[resnet152]",
    "test_layers_are_those_of_the_papers_for_imagenet[resnet101]",
    "test_layers_are_those_of_the_papers_for_imagenet[resnext101_32x8d]",
    "test_recompute_plan.py::test_peak_memory_is_at_most_the_recorded_one[AugLocal2]",
    "test_recompute_plan.py::test_peak_memory_is_at_most_the_recorded_one[MAN(DGL)]",
    "test_table5_convolutions_cost_what_auglocals_layers_do[1]",
)
"""Whole products that take seconds each: `make test` leaves them out, like tests marked `slow` in their files."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.endswith(FULL_PRODUCTS):
            item.add_marker(pytest.mark.slow)
