"""`locallearn simulate`, as a person and as a machine use it."""

from __future__ import annotations

import json

import pytest
from command_line import result_of, run

SMALL = [
    "simulate",
    "--model",
    "small_runs.little",
    "--rule",
    "dgl",
    "--modules",
    "2",
    "--image",
    "3x8x8",
    "--batch",
    "8",
]


def test_the_table_then_json_whose_times_are_read_again(capsys, tmp_path):
    assert run(*SMALL, "--devices", "4", "--speed", "1TFLOP/s") == 0
    out, err = capsys.readouterr()
    assert "local, module parallel" in out
    assert "4 devices, 2 modules of the local rule: they make 2 stages in 2 copies." in err
    found = result_of(capsys, *SMALL, "--devices", "2")
    for row in found["times"]["local"]["modules"]:
        row["forward"] *= 10
    file = tmp_path / "times.json"
    file.write_text(json.dumps(found))
    slower = result_of(capsys, *SMALL, "--devices", "2", "--times", str(file))
    assert slower["outcomes"][0]["seconds"] == pytest.approx(found["outcomes"][0]["seconds"])
    assert slower["outcomes"][-1]["seconds"] > 1.5 * found["outcomes"][-1]["seconds"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "--devices is missing"),
        ("--devices 4 --link 25Gb/s", "'25Gb/s' is no rate: write a number and a unit, as in 25GB/s or 100Gbit/s"),
        ("--devices 4 --link 0GB/s", "'0GB/s' is too small"),
        ("--devices 4 --latency 5", "'5' is no time: write a number and a unit, as in 5us"),
        ("--devices 4 --speed fast", "'fast' is no speed"),
        ("--devices 4 --speed 1TFLOP/s --measure", "give one of them"),
        ("--devices 4 --times none.json", "--times none.json: this is no readable JSON file"),
        ("--devices 4 --batch 2", "leaves some of 4 devices without one"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments, sentence):
    assert run("simulate", *arguments.split()) in (1, 2)
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"BP": {}}, "give times of both 'BP' and 'local'"),
        ({"BP": {}, "local": {}}, "'BP' must have 'images', a number, and 'modules'"),
        ({"BP": {"images": 8, "modules": [{}]}, "local": {}}, "'BP' has times of 1 module, and the network has 3."),
        ({"BP": {"images": 8, "modules": [{"sideways": 1.0}] * 3}, "local": {}}, "must be numbers from 0 of forward"),
    ],
)
def test_a_file_of_times_that_does_not_fit_is_refused(capsys, tmp_path, content, sentence):
    file = tmp_path / "times.json"
    file.write_text(json.dumps(content))
    assert run(*SMALL, "--devices", "2", "--times", str(file)) == 1
    assert sentence in capsys.readouterr().err
