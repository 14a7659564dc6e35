"""Networks whose outputs are dictionaries, named tuples, or the dataclasses of transformers."""

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pytest
import torch
from tiny_networks import torchvision
from torch import Tensor, nn

import locallearn as ll

IMAGES = (3, 8, 8)


class ModelOutput(OrderedDict):
    """As in transformers: a dataclass that is a dictionary of its fields that are not None, and indexed by position."""

    def __post_init__(self) -> None:
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            if (value := getattr(self, field.name)) is not None:
                self[field.name] = value

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


@dataclass
class EncoderOutput(ModelOutput):
    last_hidden_state: Any = None
    hidden_states: Any = None


@dataclass
class ClassifierOutput(ModelOutput):
    loss: Any = None
    hidden_states: Any = None
    logits: Any = None


class Block(nn.Module):
    """A residual block that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, hidden_states: Tensor, head_mask: Tensor | None = None) -> tuple[Tensor]:
        return (hidden_states + self.convolution(hidden_states),)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block() for _ in range(3))

    def forward(self, hidden_states: Tensor, head_mask: Any = None, return_dict: bool = True) -> EncoderOutput:
        for layer in self.layer:
            hidden_states = layer(hidden_states, None if head_mask is None else head_mask)[0]
        return EncoderOutput(last_hidden_state=hidden_states)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Conv2d(3, 4, 1)
        self.encoder = Encoder()

    def forward(self, pixel_values: Tensor, return_dict: bool = True) -> EncoderOutput:
        encoded = self.encoder(self.embeddings(pixel_values), head_mask=None, return_dict=return_dict)
        return EncoderOutput(last_hidden_state=encoded[0], hidden_states=encoded.hidden_states)


class Classifier(nn.Module):
    """A classifier of the form that transformers has."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.classifier = nn.Linear(4, 5)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ClassifierOutput:
        hidden = self.model(pixel_values, return_dict=True).last_hidden_state
        return ClassifierOutput(hidden_states=hidden, logits=self.classifier(hidden.mean((2, 3))))


@pytest.mark.parametrize("rule", [ll.DGL(), ll.AugLocal(depth=2), ll.MAN(ll.DGL())])
def test_the_blocks_of_a_classifier_as_in_transformers_are_its_layers(rule):
    torch.manual_seed(0)
    model = Classifier()
    net = ll.localize(model, rule, input_shape=IMAGES)
    assert net.chain.names == ("model.embeddings", *(f"model.encoder.layer.{i}" for i in range(3)))
    images = torch.randn(4, *IMAGES)
    expected = model(images).logits
    assert torch.equal(net(images), expected)
    assert torch.equal(net.chain.classifier(nn.Sequential(*net.chain.layers)(images)), expected)
    net.backward(images, torch.arange(4))
    assert all(parameter.grad is not None for parameter in model.parameters())


class WithHead(nn.Module):
    """A classifier of its own on inner features, in training alone, as GoogLeNet has."""

    class Outputs(NamedTuple):
        logits: Tensor
        aux: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.aux, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 5), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.one(x)
        aux = self.aux(x.mean((2, 3))) if self.training else None
        logits = self.fc(self.two(x).mean((2, 3)))
        return logits if aux is None else self.Outputs(logits, aux)


def test_a_head_of_the_network_itself_is_not_trained_and_said_so():
    model = WithHead()
    with pytest.warns(
        ll.LocalLearnWarning, match=r"heads of WithHead that its logits do not use are not trained: aux\."
    ):
        net = ll.localize(model, ll.DGL(), input_shape=IMAGES)
    assert net.chain.names == ("one", "two")
    images = torch.randn(4, *IMAGES)
    assert torch.equal(net(images), model(images).logits)
    net.backward(images, torch.arange(4))
    assert {name for name, p in model.named_parameters() if p.grad is None} == {"aux.weight", "aux.bias"}


class Returning(nn.Module):
    """Returns what `output` makes of its logits and features."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.one, self.two, self.fc, self.output = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 5), output

    def forward(self, x: Tensor) -> Any:
        x = self.two(self.one(x))
        return self.output(self.fc(x.mean((2, 3))), x)


OUTPUTS = {
    "a dictionary": lambda logits, features: {"features": features, "logits": logits},
    "a dictionary without logits": lambda logits, features: {"out": logits, "features": features},
    "a tuple": lambda logits, features: (logits, features),
    "a nested tuple": lambda logits, features: ((None, logits), features),
    "a named tuple": WithHead.Outputs,
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_logits_or_the_first_tensor_are_taken_of(output):
    model = Returning(OUTPUTS[output])
    net = ll.localize(model, ll.DGL(), input_shape=IMAGES)
    assert net.chain.names == ("one", "two")
    images = torch.randn(4, *IMAGES)
    assert torch.equal(net(images), model.fc(model.two(model.one(images)).mean((2, 3))))
    assert net.backward(images, torch.arange(4)).isfinite().all()


def test_a_last_child_may_return_a_tuple():
    class Pair(nn.Linear):
        def forward(self, input: Tensor) -> Any:
            return super().forward(input), input

    net = ll.localize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), Pair(256, 5)), ll.DGL(), input_shape=IMAGES)
    images = torch.randn(4, *IMAGES)
    assert net(images).shape == (4, 5)
    assert net.backward(images, torch.arange(4)).isfinite().all()


@pytest.mark.filterwarnings("ignore:heads of GoogLeNet that its logits do not use:locallearn.LocalLearnWarning")
def test_googlenet_with_its_classifiers_has_its_inceptions_as_layers():
    model = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True)
    net = ll.localize(model, ll.BP(), input_shape=(3, 64, 64))
    assert net.chain.names[:5] == ("conv1", "conv2", "conv3", "inception3a", "inception3b")
    assert len(net.chain) == 12


def test_an_output_without_a_tensor_is_refused():
    with pytest.raises(ll.LocalLearnError, match=r"it returns a \w+, not one tensor"):
        ll.localize(Returning(lambda logits, features: [logits, features]), ll.DGL(), input_shape=IMAGES)
