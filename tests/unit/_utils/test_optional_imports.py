"""Imports of packages that `import locallearn` does not need."""

import json

import pytest

from locallearn._utils.errors import LocalLearnError
from locallearn._utils.optional_imports import optional


def test_an_installed_package_is_imported():
    assert optional("json") is json


def test_the_error_of_a_missing_package_names_the_install_line():
    with pytest.raises(
        LocalLearnError, match=r"no_such_package is not installed: run pip install 'locallearn\[vision\]'"
    ):
        optional("no_such_package.models", extra="vision")


def test_the_error_names_the_package_that_is_missing_inside_the_imported_one(tmp_path, monkeypatch):
    (tmp_path / "imports_another.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LocalLearnError, match="no_such_dependency is not installed"):
        optional("imports_another")
