"""Results that are read again, and those that are not."""

from __future__ import annotations

import pytest

from locallearn.analysis import cache
from locallearn.analysis.cache import answered


class Computation:
    """Counts how often it is asked, and the sentences that were said."""

    def __init__(self) -> None:
        self.times, self.said = 0, []

    def __call__(self) -> dict:
        self.times += 1
        return {"value": self.times}

    def ask(self, file, **question) -> int:
        return answered(file, question, self, say=self.said.append)["value"]


@pytest.fixture
def asked(tmp_path):
    """A computation and its file, after a first answer."""
    file, computation = tmp_path / "analysis" / "probes.json", Computation()
    assert computation.ask(file, checkpoint="abc", images=None) == 1
    return file, computation


def test_the_same_question_is_answered_from_the_file(asked):
    file, computation = asked
    assert computation.ask(file, checkpoint="abc", images=None) == 1
    assert computation.said == []


@pytest.mark.parametrize("other", [{"checkpoint": "abd", "images": None}, {"checkpoint": "abc", "images": 5}])
def test_another_checkpoint_or_setting_computes_again_and_says_so(other, asked):
    file, computation = asked
    assert computation.ask(file, **other) == 2
    sentence = "is of another checkpoint, other settings or another version: it is computed again."
    assert computation.said == [f"{file} {sentence}"]
    assert computation.ask(file, **other) == 2


def test_a_result_of_another_version_computes_again(asked, monkeypatch):
    file, computation = asked
    monkeypatch.setattr(cache, "_FORMAT", 2)
    assert computation.ask(file, checkpoint="abc", images=None) == 2


@pytest.mark.parametrize("damage", [lambda text: text.replace('"value": 1', '"value": 7'), lambda text: text[:20]])
def test_a_damaged_file_computes_again_and_says_so(damage, asked):
    file, computation = asked
    file.write_text(damage(file.read_text()))
    assert computation.ask(file, checkpoint="abc", images=None) == 2
    assert computation.said == [f"{file} is damaged: it is computed again."]
    assert computation.ask(file, checkpoint="abc", images=None) == 2


def test_a_computation_that_fails_leaves_the_old_result(asked):
    file, _ = asked
    before = file.read_bytes()
    with pytest.raises(ZeroDivisionError):
        answered(file, {"images": 9}, lambda: {"value": 1 // 0}, say=print)
    assert file.read_bytes() == before


def test_a_folder_that_takes_no_results_is_said(tmp_path):
    (tmp_path / "analysis").write_text("a file where the folder would be")
    said: list[str] = []
    file = tmp_path / "analysis" / "result.json"
    assert answered(file, {}, lambda: {"value": 1}, say=said.append)["value"] == 1
    assert said[0].startswith(f"{file} cannot be written (")
