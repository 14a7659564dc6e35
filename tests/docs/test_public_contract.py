"""The lines that users write."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import locallearn as ll
from networks import LOCAL_RULES, SMALL, batch, conv_net, resnet20

HEAVY = {
    "jsonargparse",
    "rich",
    "matplotlib",
    "sklearn",
    "tensorboard",
    "wandb",
    "PIL",
    "yaml",
    "scipy",
    "pandas",
    "torchvision",
    "captum",
    "plotly",
    "jinja2",
}


def loader(shape=(3, 32, 32), classes=10, batches=2):
    return [batch(4, shape, classes, seed) for seed in range(batches)]


def test_the_lines_of_the_contract():
    model = ll.models.resnet32(num_classes=10)
    keys = list(model.state_dict())
    net = ll.localize(model, ll.AugLocal(depth=4), modules="all", input_shape=(3, 32, 32))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for images, labels in loader():
        losses = net.backward(images, labels)
        optimizer.step()
        optimizer.zero_grad()
    logits = net(images)
    assert net.model is model
    assert list(model.state_dict()) == keys
    assert losses.shape == (13,)
    assert logits.shape == (4, 10)


def test_the_lines_of_the_contract_on_an_nn_sequential():
    model = conv_net()
    before = [p.clone() for p in model.parameters()]
    net = ll.localize(model, ll.AugLocal(depth=2), modules="all", input_shape=SMALL)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for images, labels in loader(SMALL, 5):
        losses = net.backward(images, labels)
        optimizer.step()
        optimizer.zero_grad()
    assert losses.shape == (2,)
    assert torch.equal(net.eval()(images), model(images))
    assert not any(torch.equal(a, p) for a, p in zip(before, model.parameters(), strict=True) if p.dim() > 1)


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_the_loss_falls_in_a_users_own_loop(rule):
    net = ll.localize(resnet20(), LOCAL_RULES[rule], input_shape=SMALL)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    history = []
    for _ in range(8):
        for images, labels in loader(SMALL):
            history.append(net.backward(images, labels))
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
    first, last = torch.stack(history[:2]).mean(0), torch.stack(history[-2:]).mean(0)
    assert (last < first).all()
    assert len(net.objectives) == len(last)


def test_importing_the_package_imports_torch_and_numpy_only():
    code = f"import sys, locallearn; print(sorted(set(sys.modules) & {HEAVY!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert found.stderr == ""


USERS_FILE = textwrap.dedent('''
    """A rule of my own: one linear layer after the mean of the features."""

    from dataclasses import dataclass

    from torch import nn

    import locallearn as ll


    @dataclass(frozen=True, kw_only=True)
    class Linear(ll.Rule):
        dropout: float = 0.0
        weight: float = 0.5

        def spans(self, modules):
            return [ll.Span(first=i, last=i, weight=self.weight) for i in range(modules)]

        def auxiliary(self, site):
            layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(self.dropout)]
            return ll.Head(nn.Sequential(*layers, nn.Linear(site.shape[0], site.classes)), site.loss)
''')


def test_a_rule_in_a_users_own_file_of_under_thirty_lines(tmp_path):
    assert len(USERS_FILE.splitlines()) < 30
    file = tmp_path / "my_rule.py"
    file.write_text(USERS_FILE)
    spec = importlib.util.spec_from_file_location("my_rule", file)
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    net = ll.localize(resnet20(), mine.Linear(), modules=4, input_shape=SMALL)
    assert [(o.first, o.last, o.weight) for o in net.objectives] == [(i, i, 0.5) for i in range(4)]
    assert sum(p.numel() for p in net.auxiliary.parameters()) == 170 + 330 + 650
    assert net.backward(*batch()).shape == (4,)
    assert all(p.grad is not None for p in net.parameters())


class Reconstruction(ll.Auxiliary):
    """An auxiliary network that does not classify."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.decoder = nn.Conv2d(channels, 3, 1)

    def forward(self, features, images, labels):
        target = nn.functional.adaptive_avg_pool2d(images, features.shape[2:])
        return nn.functional.mse_loss(self.decoder(features), target)


class Autoencoding(ll.Rule):
    def auxiliary(self, site):
        return Reconstruction(site.shape[0])


def test_a_rule_whose_auxiliary_networks_do_not_classify():
    net = ll.localize(resnet20(), Autoencoding(), input_shape=SMALL)
    images, labels = batch()
    assert net.backward(images, labels).isfinite().all()
    assert [found is None for found in net.eval().logits(images)] == [True] * 9 + [False]


class Centring(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x):
        return x.sub_(1) if self.inplace else x - 1


class CentredAutoencoding(Autoencoding):
    def __init__(self, inplace: bool) -> None:
        self.inplace = inplace

    def auxiliary(self, site):
        network = super().auxiliary(site)
        network.decoder = nn.Sequential(Centring(self.inplace), network.decoder)
        return network


def test_an_auxiliary_network_that_writes_on_its_features_leaves_the_next_module_its_own():
    images, labels = batch()
    plain, writing = (
        ll.localize(resnet20(), rule, modules=["stem", "layer2.0"], input_shape=SMALL)
        for rule in (CentredAutoencoding(False), CentredAutoencoding(True))
    )
    assert torch.equal(plain.backward(images, labels), writing.backward(images, labels))


def test_a_rule_is_asked_for_a_network_where_each_module_ends():
    sites = []

    class Watching(ll.DGL):
        def auxiliary(self, site):
            sites.append(site)
            return super().auxiliary(site)

    ll.localize(resnet20(), Watching(), modules=["layer1.2", "layer2.2"], input_shape=SMALL)
    assert [(s.layer, s.module, s.modules, s.shape) for s in sites] == [(3, 0, 3, (16, 16, 16)), (6, 1, 3, (32, 8, 8))]
    assert all(s.level is ll.Level.INDEPENDENT and s.classes == 10 and s.image_shape == SMALL for s in sites)
