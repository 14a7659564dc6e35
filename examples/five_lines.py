"""The five-line loop: AugLocal on the digits that scikit-learn brings, in seconds on a CPU.

python examples/five_lines.py
"""

import argparse
from pathlib import Path

import torch

import locallearn as ll
from locallearn.data import Feed, digits

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--images", type=int, default=1438, help="training images, at most 1438")
settings = parser.parse_args()

torch.manual_seed(0)
data = digits(Path("data")).limited(settings.images)
train = data.training(Feed(batch=64), seed=0, drop_single=True)
test = data.testing(Feed(batch=64))

model = ll.models.resnet20(num_classes=10)
net = ll.localize(model, ll.AugLocal(depth=3), modules="all", input_shape=data.image_shape)
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
for epoch in range(1, settings.epochs + 1):
    history = []
    for images, labels in train.epoch(epoch):
        history.append(net.backward(images, labels))
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {epoch}: mean loss of each module {' '.join(f'{loss:.2f}' for loss in torch.stack(history).mean(0))}")

net.eval()
with torch.no_grad():
    right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in test.epoch(1))
print(f"test accuracy {right / len(data.test):.1%}")
print("the backbone's state-dict keys are unchanged:", *list(model.state_dict())[:3], "...")
