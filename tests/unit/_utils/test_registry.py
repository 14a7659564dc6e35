"""Names of the command line, and dotted paths."""

import pytest

import locallearn as ll
from locallearn._utils import registry
from locallearn._utils.errors import LocalLearnError


def test_every_name_leads_to_something_that_can_be_called():
    for kind in ("rules", "models", "data"):
        for name in registry.names(kind):
            assert callable(registry.find(kind, name)), name


def test_names_and_dotted_paths_are_found():
    assert registry.names("rules")["dgl"] == "locallearn.DGL"
    assert registry.find("rules", "DGL") is ll.DGL
    assert registry.find("rules", "locallearn.DGL.original")() == ll.DGL.original()


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(LocalLearnError, match=r"unknown model 'resnet33'; did you mean 'resnet3\d'\?"):
        registry.find("models", "resnet33")


@pytest.mark.parametrize("path", ["no_such_package.net", "locallearn.NoSuchRule", "locallearn..DGL"])
def test_a_path_that_cannot_be_imported_is_refused_by_name(path):
    with pytest.raises(LocalLearnError, match=rf"rule '{path}' cannot be imported"):
        registry.find("rules", path)


def test_a_call_with_arguments_that_do_not_fit_is_refused_by_name():
    assert registry.call("rules", "auglocal", depth=3) == ll.AugLocal(depth=3)
    with pytest.raises(LocalLearnError, match="rule 'dgl' is no function as it must be"):
        registry.call("rules", "dgl", no_such_setting=1)
