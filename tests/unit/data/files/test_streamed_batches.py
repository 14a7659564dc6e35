"""Images in files: what is decoded, how it is augmented, in which order, and what becomes of bad ones."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import BAD, jpeg, shards_from, tree

from locallearn import LocalLearnError
from locallearn._torch.vision_libraries import import_torchvision
from locallearn.data import Feed, FileSet, StreamedBatches, image_folder
from locallearn.data.files.streamed_batches import _decode, _Decoded
from locallearn.data.files.workers import leave_signals_to_the_trainer
from locallearn.data.order import seed_of

import_torchvision()  # so that tests can

# Python 3.12 warns of any fork beside threads; workers only decode.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> FileSet:
    return image_folder(tree(tmp_path_factory.mktemp("images") / "set")).resized(16)


def training(data: FileSet, *, batch: int = 7, seed: int = 0, drop_single: bool = False, **feed) -> StreamedBatches:
    return data.training(Feed(batch=batch, **({"workers": 0} | feed)), seed=seed, drop_single=drop_single)


def equal(one, other) -> bool:
    one, other = list(one), list(other)
    same = [torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)]
    return all(same) and len(same) > 0


def loop(data: FileSet, rows: list[int], *, seed: int, epoch: int) -> torch.Tensor:
    """Augmented images by torchvision itself, one after the other."""
    from torchvision.transforms import v2

    augment = v2.Compose([v2.RandomResizedCrop(data.side, antialias=True), v2.RandomHorizontalFlip()])
    images = []
    for row in rows:
        torch.manual_seed(seed_of(seed, epoch, row))
        images.append(augment(v2.functional.pil_to_tensor(Image.open(data.train.name(row)))))
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    return (torch.stack(images) - mean) / std


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own(data):
    batches = training(data)
    assert len(batches) == 4
    labels = [[y for _, y in batches.epoch(epoch)] for epoch in (1, 2)]
    assert [len(y) for y in labels[0]] == [7, 7, 7, 3]
    first, second = (torch.cat(epoch) for epoch in labels)
    assert not torch.equal(first, second)
    assert first.bincount().tolist() == second.bincount().tolist() == [8, 8, 8]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_epoch_is_the_same_whoever_decodes_it_and_from_any_start(data, workers):
    whole = list(training(data, rand_augment=(2, 9)).epoch(3))
    torch.rand(5)
    for start in range(4):
        batches = training(data, workers=workers, rand_augment=(2, 9)).epoch(3, start=start)
        assert equal(batches, whole[start:])


def test_seed_and_epoch_change_order_and_augmentation(data):
    everything = {"batch": 24}
    one = next(training(data, **everything).epoch(1))
    for other in (next(training(data, **everything).epoch(2)), next(training(data, seed=1, **everything).epoch(1))):
        assert not torch.equal(one[1], other[1])
        assert not torch.allclose(one[0].sum((1, 2, 3)).sort().values, other[0].sum((1, 2, 3)).sort().values)


def test_images_are_torchvisions_with_random_numbers_of_seed_epoch_and_image(data):
    from locallearn.data.order import order_of

    rows = order_of(len(data.train), seed=4, epoch=2).tolist()
    images, labels = next(training(data, batch=24, seed=4).epoch(2))
    assert torch.equal(images, loop(data, rows, seed=4, epoch=2))
    assert labels.tolist() == data.train.labels[rows].tolist()


def test_test_images_are_resized_and_cropped_in_the_centre(data):
    from torchvision.transforms import v2

    plain = v2.Compose([v2.Resize(18, antialias=True), v2.CenterCrop(16)])
    images, labels = next(data.testing(Feed(batch=12, workers=0)).epoch(1))
    assert labels.tolist() == data.test.labels.tolist()
    for row, image in enumerate(images):
        pixels = plain(v2.functional.pil_to_tensor(Image.open(data.test.name(row))))
        found = image * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]
        assert torch.allclose(found, pixels.float(), atol=1e-3)


def test_imagenets_test_images_have_256_and_224_pixels(data):
    large = data.resized(224)
    assert large.image_shape == (3, 224, 224)
    assert next(large.testing(Feed(batch=2, workers=0)).epoch(1))[0].shape == (2, 3, 224, 224)
    assert np.allclose(np.array(data.mean) / 255, (0.485, 0.456, 0.406))
    assert np.allclose(np.array(data.std) / 255, (0.229, 0.224, 0.225))
    from locallearn.data.files.streamed_batches import _transform

    assert "size=[256]" in str(_transform(224, False))
    assert "scale=(0.08, 1.0)" in str(_transform(224, True))


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(data, channels_last):
    images, _ = next(training(data, channels_last=channels_last).epoch(1))
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_draws_the_same_numbers_whatever_batches_draw(data, workers):
    torch.manual_seed(0)
    expected = torch.rand(6)
    torch.manual_seed(0)
    found = [torch.rand(1) for _ in training(data, workers=workers).epoch(1)]
    found += [torch.rand(1) for _ in data.testing(Feed(batch=12, workers=workers)).epoch(1)]
    assert torch.equal(torch.cat(found), expected[: len(found)])
    assert len(found) == 5


def test_a_single_image_left_over_can_be_left_out(data):
    assert [len(y) for _, y in training(data, batch=23).epoch(1)] == [23, 1]
    assert [len(y) for _, y in training(data, batch=23, drop_single=True).epoch(1)] == [23]
    assert len(training(data, batch=23, drop_single=True)) == 1


def test_shards_give_the_same_batches_as_folders(tmp_path):
    folder = tree(tmp_path / "set")
    shards = image_folder(shards_from(folder, tmp_path / "shards")).resized(16)
    assert equal(training(shards, workers=1).epoch(1), training(image_folder(folder).resized(16)).epoch(1))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {"format": "PNG"}),
        ("1", {"format": "PNG"}),
        ("P", {"format": "PNG"}),
        ("RGBA", {"format": "PNG"}),
        ("CMYK", {"format": "JPEG"}),
        ("L", {"format": "JPEG"}),
        ("RGB", {"format": "WEBP", "lossless": True}),
        ("RGB", {"format": "BMP"}),
        ("RGB", {"format": "TIFF"}),
        ("RGB", {"format": "PPM"}),
    ],
)
def test_every_kind_of_image_becomes_three_channels(mode, options):
    image = Image.open(io.BytesIO(jpeg(2, width=21, height=13))).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, **options)
    found = _decode(buffer.getvalue())
    assert found.shape == (3, 13, 21)
    assert found.dtype == torch.uint8
    expected = np.asarray(image.convert("RGB"), int)
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).mean() < (20 if options["format"] == "JPEG" else 1)


@pytest.mark.parametrize(("mode", "options"), [("I;16", {"format": "PNG"}), ("F", {"format": "TIFF"})])
def test_pixels_that_would_be_clipped_are_refused(mode, options):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, **options)
    with pytest.raises(ValueError, match=f"pixels of mode {mode} instead of 8 bits"):
        _decode(buffer.getvalue())


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_with_its_path(tmp_path, name, workers):
    folder = tree(tmp_path / "set", bad=(name,))
    with pytest.raises(LocalLearnError) as error:
        list(training(image_folder(folder).resized(16), workers=workers).epoch(1))
    told = str(error.value)
    assert told.startswith(f"{folder / 'train' / 'ant' / name} (")
    assert told.endswith(" is no readable image: mend or remove it, or leave such images out with --bad-images skip.")
    assert "\n" not in told


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_left_out_and_named(tmp_path, workers):
    folder = tree(tmp_path / "set", bad=tuple(BAD))
    batches = training(image_folder(folder).resized(16), workers=workers, bad_images="skip")
    assert len(batches) == 4
    for epoch in (1, 2):
        seen = [len(y) for _, y in batches.epoch(epoch)]
        assert sum(seen) == 24
        assert len(seen) == 4
        named = sorted(name.partition(" (")[0] for name in batches.skipped)
        assert named == sorted(str(folder / "train" / "ant" / name) for name in BAD)


def test_good_images_are_the_same_whether_others_are_bad_or_not(tmp_path):
    folder = tree(tmp_path / "set", bad=("half.jpg",))
    data = image_folder(folder).resized(16)
    names = [data.train.name(row) for row in range(len(data.train))]
    bad = names.index(str(folder / "train" / "ant" / "half.jpg"))
    rows = [row for row in range(25) if row != bad]
    skipping = torch.cat([x for x, _ in training(data, batch=25, bad_images="skip").epoch(1)])
    decoded = _Decoded(data.train, side=16, seed=0)
    order = np.random.default_rng([0, 1]).permutation(25)
    expected, _, none = decoded[1, np.array([row for row in order if row in rows])]
    assert not none
    found = skipping * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]
    assert torch.equal(found.round().byte(), expected.permute(0, 3, 1, 2))


def test_a_batch_of_bad_images_alone_is_refused(tmp_path):
    folder = tree(tmp_path / "set")
    for path in (folder / "train" / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(LocalLearnError, match=r"of a batch of 2 images [12] cannot be read, .*bee.* for one: mend"):
        list(training(image_folder(folder).resized(16), batch=2, bad_images="skip").epoch(1))


def test_a_file_that_is_gone_since_is_named(tmp_path):
    data = image_folder(tree(tmp_path / "set")).resized(16)
    os.unlink(data.train.name(3))
    with pytest.raises(
        LocalLearnError, match=r"ant/003.jpg \(003.jpg cannot be read \(No such file.*is no readable image"
    ):
        list(training(data).epoch(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fifo_and_a_file_too_large_for_an_image_are_refused_at_once(tmp_path, workers):
    data = image_folder(tree(tmp_path / "set")).resized(16)
    path = Path(data.train.name(3))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LocalLearnError, match=r"003.jpg is no regular file\) is no readable image"):
        list(training(data, workers=workers).epoch(1))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(200 * 10**9)
    with pytest.raises(LocalLearnError, match=r"003.jpg has 200,000,000,000 bytes, more than"):
        list(training(data, workers=workers).epoch(1))


def test_a_worker_that_dies_is_told(data, monkeypatch):
    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("locallearn.data.files.streamed_batches._decode", killed)
    with pytest.raises(LocalLearnError, match=r"a process that decodes images died .*try fewer --workers"):
        list(training(data, workers=1).epoch(1))


def test_workers_leave_ctrl_c_to_the_trainer():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        leave_signals_to_the_trainer(0)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def test_wrong_settings_are_refused():
    with pytest.raises(LocalLearnError, match="workers=-1"):
        Feed(batch=1, workers=-1)
    with pytest.raises(LocalLearnError, match="'skp' is not valid; did you mean 'skip'"):
        Feed(batch=1, bad_images="skp")  # pyright: ignore[reportArgumentType]


def test_without_torchvision_the_pip_line_is_told_before_anything_is_read(data, monkeypatch):
    from locallearn.data.files import streamed_batches

    def missing() -> None:
        raise LocalLearnError("torchvision is not installed: run pip install 'locallearn[vision]'.")

    monkeypatch.setattr(streamed_batches, "import_torchvision", missing)
    streamed_batches._transform.cache_clear()
    with pytest.raises(LocalLearnError, match=r"pip install 'locallearn\[vision\]'"):
        training(data)


def test_torchvision_is_the_real_one():
    assert import_torchvision().__version__.startswith("0.")
    assert import_torchvision() is import_torchvision()
