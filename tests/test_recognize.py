from functools import partial

import numpy as np
import pytest
import scipy.io
import test_named as named
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset, random_split
from torchvision import datasets, transforms
from torchvision.transforms import v2

from goodfit.data.dataset import Part
from goodfit.data.folder import read_samples
from goodfit.data.loader import Loader
from goodfit.data.recognize import recognize, to_raw_data
from goodfit.data.splits import build_dataset
from goodfit.errors import DataError

HALF = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
HALVES = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))])
ROUNDING = 1e-6  # of float32, on numbers of a few units


def assert_same(data_set, tolerance=ROUNDING, **options):
    """Compare what the loader and the transform give for some rows with what the data set gives."""
    recognized = recognize(data_set, **options)
    assert recognized is not None
    assert len(recognized) == len(data_set)
    raw = to_raw_data({"train": recognized, "test": recognized}, "given")
    data = build_dataset(raw, val=0, test=0, max_train=0, seed=0)
    loader = Loader(data.train, 3, seed=0, device=torch.device("cpu"))
    for step in range(loader.steps_per_epoch):
        batch, rows = loader(step), loader.positions(step).tolist()
        expected = [data_set[row] for row in rows]
        inputs = torch.stack([example for example, _ in expected]).float()
        seen = data.transform.normalize(batch.inputs)
        assert seen.shape == inputs.shape
        assert (seen - inputs).abs().max() <= tolerance
        assert torch.equal(batch.targets, torch.stack([torch.as_tensor(target).reshape(()) for _, target in expected]))
    return raw


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def labels(count, classes=3):
    return torch.arange(count) % classes


@pytest.fixture
def mnist(tmp_path):
    for part, count in (("train", 24), ("test", 8)):
        named.write_idx_split(tmp_path, "mnist", part, noise(count, 28, 28).numpy(), labels(count, 4).numpy().astype("u1"))
    return partial(datasets.MNIST, tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of three classes, of many sizes, kinds and orientations, one of them in a folder below."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for row in range(12):
        image = Image.effect_noise((20 + row, 31 - 2 * row), 90).convert(("RGB", "L", "RGBA", "P")[row % 4])
        path = tmp_path / "pictures" / ("ant", "bee", "cat")[row % 3] / ("deep" if row == 3 else "") / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, exif=exif)
    return tmp_path / "pictures"


def even_folder(root, size=(9, 7), count=8):
    for row in range(count):
        path = root / ("ant", "bee")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 90).convert("RGB").save(path)
    return root


# Tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(9, 4), (9, 3, 5, 4), (9, 1)])
def test_a_tensor_dataset_of_numbers_is_used_as_it_is(dtype, shape):
    numbers = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100 + 7).to(dtype)
    raw = assert_same(TensorDataset(numbers, labels(9)), tolerance=0)
    assert (raw.task, raw.classes) == ("classification", ("0", "1", "2"))
    if dtype == torch.float32:
        assert raw.parts["train"].inputs.data_ptr() == numbers.data_ptr()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tensor_dataset_of_bytes_reaches_the_model_as_bytes(channels):
    raw = assert_same(TensorDataset(noise(9, channels, 5, 4), labels(9)), tolerance=0)
    assert raw.parts["train"].inputs.dtype == torch.uint8
    assert "numbers from 0 to 255" in raw.notes[0]


def test_fractions_are_a_regression():
    targets = torch.randn(9, generator=torch.Generator().manual_seed(0))
    raw = assert_same(TensorDataset(torch.ones(9, 2), targets))
    assert (raw.task, raw.classes, raw.parts["train"].targets.dtype) == ("regression", (), torch.float32)
    assert "fractions" in raw.notes[0]
    assert torch.equal(assert_same(TensorDataset(torch.ones(9, 2), targets.view(9, 1))).parts["train"].targets, targets)
    whole = to_raw_data({"train": recognize(TensorDataset(torch.ones(9, 2), labels(9)))}, "given", task="regression")
    assert whole.parts["train"].targets.tolist() == labels(9).float().tolist()


@pytest.mark.parametrize(
    "tensors",
    [
        (torch.ones(9, 4, dtype=torch.int64), labels(9)),  # numbers of words, which an embedding looks up
        (noise(9, 5, 4), labels(9)),  # a batch of them has no channels
        (torch.ones(9), labels(9)),
        (torch.ones(9, 4),),
        (torch.ones(9, 4), torch.ones(9, 4), labels(9)),
        (torch.ones(9, 4), torch.ones(9, 2)),
        (torch.ones(0, 4), torch.ones(0)),
        (torch.ones(9, 4).to_sparse(), labels(9)),
    ],
)
def test_other_tensor_datasets_are_left_to_themselves(tensors):
    assert recognize(TensorDataset(*tensors)) is None


def test_whole_numbers_keep_their_values():
    targets = torch.tensor([0, 1, 4] * 4)
    raw = to_raw_data({"train": recognize(TensorDataset(torch.ones(12, 2), targets))}, "given")
    assert raw.classes == ("0", "1", "2", "3", "4")
    assert torch.equal(raw.parts["train"].targets, targets)
    signs = TensorDataset(torch.ones(60, 2), torch.tensor([-1, 1] * 30))
    assert to_raw_data({"train": recognize(signs)}, "given").classes == ("-1", "1")


def test_a_number_that_is_not_finite_is_named():
    with pytest.raises(DataError, match="first tensor of the TensorDataset has nan in row 1, column 0"):
        recognize(TensorDataset(torch.tensor([[1.0], [float("nan")]]), labels(2)))


# torchvision's own


@pytest.mark.parametrize(
    "transform",
    [
        HALF,
        transforms.ToTensor(),
        transforms.Compose([transforms.Resize(32), transforms.ToTensor(), transforms.Normalize([0.1307], [0.3081])]),
        transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28), *HALF.transforms]),  # the old size, other pixels
        transforms.Compose([transforms.Resize((20, 31), 3), transforms.CenterCrop((21, 17)), *HALF.transforms]),
        transforms.Compose([transforms.Grayscale(3), *HALVES.transforms]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.2], [0.1])]),
        v2.Compose([v2.RGB(), v2.Resize(19), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]),
    ],
)
def test_mnist_gives_what_its_own_code_gives(mnist, transform):
    raw = assert_same(mnist(train=True, transform=transform))
    assert raw.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist", "emnist-letters", "qmnist"])
def test_its_relatives_do_too(tmp_path, name):
    for part in named.NAMED[name].splits:
        if name == "qmnist":
            table = np.stack([labels(6) + 1, labels(6), labels(6)], 1).astype(">i4")
            images, targets = named.NAMED[name].splits[part].files
            named.write_idx(tmp_path / images, noise(6, 28, 28).numpy())
            named.write_idx(tmp_path / targets, table)
        else:
            numbers = (labels(6) + 1).numpy().astype("u1")
            named.write_idx_split(tmp_path, name, part, noise(6, 28, 28).numpy(), numbers)
    entry = named.NAMED[name]
    make = partial(getattr(datasets, entry.source), tmp_path, **entry.splits["test"].arguments)
    raw = assert_same(make(transform=HALF))
    assert raw.classes[-10:] == entry.classes[-10:]
    assert raw.parts["train"].targets.tolist() == [1, 2, 3] * 2  # as the data set has them, with the N/A of the letters
    if name == "qmnist":
        assert recognize(make(transform=HALF, compat=False)) is None


@pytest.mark.parametrize(
    "transform", [HALVES, transforms.Compose([transforms.Grayscale(), transforms.Resize(20), *HALF.transforms])]
)
@pytest.mark.parametrize(("kind", "order"), [("CIFAR10", (0, 2, 3, 1)), ("SVHN", (0, 1, 2, 3)), ("STL10", (0, 1, 2, 3))])
def test_colour_sets_give_what_their_own_code_gives(kind, order, transform):
    data_set = getattr(datasets, kind).__new__(getattr(datasets, kind))  # its files have checksums that cannot be made
    datasets.VisionDataset.__init__(data_set, "", transform=transform)
    data_set.data = noise(9, 3, 32, 30).permute(order).numpy()
    data_set.targets = data_set.labels = labels(9).tolist() if kind == "CIFAR10" else labels(9).numpy()
    data_set.classes = [f"class {number}" for number in range(10)]
    assert assert_same(data_set).classes[0] == ("0" if kind == "SVHN" else "class 0")
    data_set.labels = data_set.targets = torch.tensor([-1] * 9)  # what STL10 gives to pictures without a class
    assert recognize(data_set) is None


def test_svhn_and_usps_are_read_from_their_files(tmp_path, monkeypatch):
    pixels = noise(8, 3, 32, 32).numpy()
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": pixels.transpose(2, 3, 1, 0), "y": np.array([[10], [1]] * 4, "u1")})
    part = ["", "train_32x32.mat", named.sum_of(tmp_path / "train_32x32.mat")]
    monkeypatch.setitem(datasets.SVHN.split_list, "train", part)
    assert assert_same(datasets.SVHN(tmp_path, transform=HALVES)).parts["train"].targets.tolist() == [0, 1] * 4

    row = " ".join(f"{place}:{value}" for place, value in enumerate([-1.0, 1.0] * 128, 1))
    (tmp_path / "usps.bz2").write_bytes(named.bz2.compress(f"10 {row}\n1 {row}\n".encode() * 3))
    assert assert_same(datasets.USPS(tmp_path, transform=HALF)).classes == tuple("0123456789")


def test_without_a_transform_pictures_are_centred_as_those_of_arrays_are(mnist):
    raw = to_raw_data({"train": recognize(mnist(train=True))}, "given")
    transform = raw.fit(raw.parts["train"].inputs, torch.arange(24))
    seen = transform.normalize(raw.parts["train"].inputs)
    assert abs(float(seen.mean())) < 1e-5
    assert abs(float(seen.std(correction=0)) - 1) < 1e-4


def test_the_configuration_can_still_give_mean_and_deviation(mnist):
    raw = to_raw_data(
        {"train": recognize(mnist(train=True, transform=transforms.Compose([transforms.Resize(20), HALF])))}, "given"
    )
    transform = raw.fit(raw.parts["train"].inputs, torch.arange(24), mean=0.1)
    assert (transform.mean, transform.std, transform.resize) == ((0.1,), (0.5,), (20,))
    numbers = to_raw_data({"train": recognize(TensorDataset(torch.ones(9, 4), labels(9)))}, "given")
    assert numbers.fit(numbers.parts["train"].inputs, torch.arange(9), std=2.0).std == (2.0,) * 4


def test_random_steps_become_settings(mnist):
    steps = [transforms.RandomCrop(28, 2, padding_mode="reflect"), transforms.RandomHorizontalFlip(), *HALF.transforms]
    drawing = recognize(mnist(train=True, transform=transforms.Compose(steps)))
    raw = to_raw_data({"train": drawing, "test": recognize(mnist(train=False, transform=HALF))}, "given")
    assert raw.settings == {"augment.flip": True, "augment.crop": 2, "augment.fill": "reflect"}
    assert raw.notes == ()
    raw = to_raw_data({"train": drawing, "val": drawing}, "given")
    assert raw.notes == ("the random steps in the transform of val are left out: only training draws",)
    assert recognize(mnist(train=True, transform=transforms.Compose([transforms.RandomCrop(24), HALF]))) is None


def test_what_is_not_known_exactly_is_left_to_itself(mnist):
    class Own(datasets.MNIST):
        pass

    Own.__module__ = datasets.MNIST.__module__
    own = Own.__new__(Own)
    own.__dict__ = mnist(train=True, transform=HALF).__dict__
    assert recognize(own) is None
    assert recognize(mnist(train=True, transform=HALF, target_transform=str)) is None
    assert recognize(mnist(train=True, transform=transforms.Lambda(np.asarray))) is None
    assert recognize(datasets.FakeData(5)) is None
    assert recognize([1, 2]) is None


def test_a_store_that_would_fill_the_memory_is_left_to_itself(mnist, monkeypatch):
    data_set = mnist(train=True, transform=transforms.Compose([transforms.Resize(56), *HALF.transforms]))
    monkeypatch.setattr("goodfit.data.recognize.fits", lambda size: size < 24 * 56 * 56)
    assert recognize(data_set) is None
    assert recognize(ConcatDataset([mnist(transform=HALF)] * 4)) is None
    assert recognize(Subset(mnist(transform=HALF), [1] * 96)) is None


def test_three_deviations_for_grey_pictures_are_refused_in_one_line(mnist):
    with pytest.raises(DataError, match=r"is for 3 channels, and the pictures have 1") as error:
        recognize(mnist(train=True, transform=HALVES))
    assert "\n" not in str(error.value)


# Folders


@pytest.mark.parametrize(
    "steps",
    [
        [transforms.Resize((8, 6))],
        [transforms.Resize(12), transforms.CenterCrop(10)],
        [transforms.CenterCrop((21, 24))],
        [transforms.Grayscale(), transforms.Resize(9), transforms.CenterCrop(12)],
    ],
)
def test_an_image_folder_gives_what_its_own_code_gives(folder, steps):
    normalize = transforms.Normalize(0.4, 0.3)
    data_set = datasets.ImageFolder(folder, transform=transforms.Compose([*steps, transforms.ToTensor(), normalize]))
    raw = assert_same(data_set, decode=partial(read_samples, processes=1))
    assert raw.classes == ("ant", "bee", "cat")
    assert raw.parts["train"].names == [str(path)[len(str(folder)) + 1 :] for path, _ in data_set.samples]
    transform = raw.fit(raw.parts["train"].inputs, torch.arange(3))
    again = transform.encode([path for path, _ in data_set.samples])
    assert torch.equal(again, raw.parts["train"].inputs)  # so that a prediction sees what training saw


@pytest.mark.parametrize("steps", [[], [transforms.Resize(5)]])
def test_pictures_of_one_size_need_no_resize(tmp_path, steps):
    root = even_folder(tmp_path / "pictures")
    data_set = datasets.ImageFolder(root, transform=transforms.Compose([*steps, HALVES]))
    assert assert_same(data_set).parts["train"].inputs.shape[1:] == ((3, 5, 6) if steps else (3, 7, 9))


def test_pictures_that_come_out_with_several_sizes_are_left_to_themselves(folder, tmp_path, monkeypatch):
    assert recognize(datasets.ImageFolder(folder, transform=HALVES)) is None
    assert recognize(datasets.ImageFolder(folder, transform=transforms.Compose([transforms.Resize(9), HALVES]))) is None
    monkeypatch.setattr("goodfit.data.recognize.SAMPLE", 1)  # the other one is met when all are decoded
    root = even_folder(tmp_path / "even")
    Image.new("RGB", (9, 8)).save(root / "bee" / "9.png")
    assert recognize(datasets.ImageFolder(root, transform=HALVES)) is None


def test_other_folders(folder, tmp_path):
    transform = transforms.Compose([transforms.Resize((8, 6)), HALVES])
    assert recognize(datasets.ImageFolder(folder, loader=Image.open, transform=transform)) is None
    loader = datasets.folder.default_loader
    assert_same(datasets.DatasetFolder(folder, loader, (".png",), transform=transform))
    raw = to_raw_data({"train": recognize(datasets.ImageFolder(folder))}, "given")
    assert raw.parts["train"].inputs.shape == (12, 3, 32, 32)
    (folder / "ant" / "9.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"'?ant/9.png'? is damaged.*; replace what is damaged, or remove it"):
        recognize(datasets.ImageFolder(folder, transform=transform))


# Parts of data sets, and several


def test_subsets_of_one_data_set_share_its_store(mnist):
    data_set = mnist(train=True, transform=transforms.Compose([transforms.Resize(20), HALF]))
    known = {}
    first, second = (recognize(part, known) for part in random_split(data_set, [15, 9], torch.Generator().manual_seed(3)))
    assert first.inputs is second.inputs
    assert sorted([*first.rows.tolist(), *second.rows.tolist()]) == list(range(24))
    raw = to_raw_data({"train": first, "val": second}, "given")
    assert [len(part.targets) for part in raw.parts.values()] == [15, 9]


def test_a_subset_gives_what_its_own_code_gives(mnist, folder):
    data_set = mnist(train=True, transform=HALF)
    assert_same(Subset(data_set, [3, -1, 3, 7, 11, 0]))
    assert_same(Subset(Subset(data_set, [0, 4, 8, 1, 5, 9]), torch.tensor([5, 4, 3, 2, 1, 0])))
    assert_same(Subset(TensorDataset(torch.randn(9, 4), labels(9)), range(8, 2, -1)), tolerance=0)
    pictures = datasets.ImageFolder(folder, transform=transforms.Compose([transforms.Resize((8, 6)), HALVES]))
    raw = assert_same(Subset(pictures, [1, 2, 5, 6]))
    assert raw.parts["train"].names == [f"{pictures.samples[row][0]}"[len(str(folder)) + 1 :] for row in (1, 2, 5, 6)]
    assert recognize(Subset(data_set, [99])) is None
    assert recognize(Subset(data_set, [])) is None


def test_several_of_one_kind_are_one(mnist):
    train, test = mnist(train=True, transform=HALF), mnist(train=False, transform=HALF)
    assert_same(ConcatDataset([train, Subset(test, [5, 2])]))
    assert recognize(ConcatDataset([train, mnist(train=False, transform=transforms.ToTensor())])) is None
    assert recognize(ConcatDataset([train, [1]])) is None


def test_parts_with_other_transforms_are_refused_with_both(mnist):
    train, test = (recognize(mnist(transform=transform)) for transform in (HALF, transforms.ToTensor()))
    with pytest.raises(
        DataError, match=r"train has mean \[0.5\], std \[0.5\], and test has mean \[0.0\], std \[1.0\]; give them"
    ):
        to_raw_data({"train": train, "test": test}, "given")
    with pytest.raises(DataError, match=r"and test has no transform; give them"):
        to_raw_data({"train": train, "test": recognize(mnist())}, "given")


def test_parts_with_other_classes_are_refused(tmp_path):
    even_folder(tmp_path / "train")
    even_folder(tmp_path / "test")
    (tmp_path / "test" / "bee").rename(tmp_path / "test" / "wasp")
    train, test = (recognize(datasets.ImageFolder(tmp_path / part, transform=HALVES)) for part in ("train", "test"))
    with pytest.raises(DataError, match="different classes, train ant, bee and test ant, wasp; give them the same"):
        to_raw_data({"train": train, "test": test}, "given")


def test_targets_that_cannot_be_learned_are_refused(mnist):
    data_set = mnist(transform=HALF)
    with pytest.raises(DataError, match=r"has classes, and data\.task = 'regression'"):
        to_raw_data({"train": recognize(data_set)}, "given", task="regression")
    with pytest.raises(DataError, match="every example is of the one class '2'"):
        to_raw_data({"train": recognize(Subset(data_set, [2, 6, 10]))}, "given")
    data_set.targets = data_set.targets + 9
    with pytest.raises(DataError, match="train has the class 12, and there are 10: count them from 0"):
        to_raw_data({"train": recognize(data_set)}, "given")
    with pytest.raises(DataError, match="given has test but no training examples"):
        to_raw_data({"test": recognize(data_set)}, "given")


def test_a_trained_models_classes_are_met_by_name_or_counted(mnist):
    numbers = recognize(TensorDataset(torch.ones(4, 2), torch.tensor([0, 1, 1, 2])))
    raw = to_raw_data({"test": numbers}, "given", classes=("ant", "bee", "cat"))
    assert (raw.classes, raw.parts["test"].targets.tolist()) == (("ant", "bee", "cat"), [0, 1, 1, 2])
    raw = to_raw_data({"test": numbers}, "given", classes=("2", "1", "0"))
    assert (raw.classes, raw.parts["test"].targets.tolist()) == (("2", "1", "0"), [2, 1, 1, 0])
    with pytest.raises(DataError, match=r"the class .*, which the model does not"):
        to_raw_data({"test": numbers}, "given", classes=("ant", "bee"))
    raw = to_raw_data({"test": recognize(mnist(train=False, transform=HALF))}, "given", classes=tuple("0123456789"))
    assert isinstance(raw.parts["test"], Part)
    assert raw.classes == tuple("0123456789")


@pytest.mark.data
def test_the_real_mnist_gives_what_its_own_code_gives(real_data):
    for name in ("MNIST", "FashionMNIST"):
        data_set = getattr(datasets, name)(real_data, train=False, transform=HALF)
        assert_same(Subset(data_set, range(0, 10_000, 40)))
