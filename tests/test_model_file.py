"""The model file: round trip, equal bytes for equal runs, and every damaged or hostile file refused in one line."""

import json
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import request, run_through, silent, tiny_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from goodfit.artefacts.model_file import BLANK, KEY, ModelFile
from goodfit.distributed import Ranks
from goodfit.errors import FileError, InputError, ModelError
from goodfit.session import make_session
from goodfit.workflows import plan

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "model.hidden": [4],
    "train.epochs": 1,
    "train.batch_size": 8,
    "train.threads": 1,
    "train.precision": "fp32",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file as a run leaves it."""
    return run_through({"train": tiny_pictures()}, tmp_path_factory.mktemp("runs") / "run", SETTINGS).model


def document_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()[KEY])
    return found


def signed(text: str, tensors: dict[str, torch.Tensor]) -> bytes:
    """Return a model file with any document in its header, and the SHA-256 that makes it a whole one."""
    content = save(tensors, {KEY: text})
    return content.replace(BLANK.encode(), sha256(content).hexdigest().encode(), 1)


def rewritten(whole: Path, path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write `whole` with a changed document, signed, to `path`."""
    document = document_of(whole) | {"sha256": BLANK}
    changed = change(document)
    path.write_bytes(signed(json.dumps(document if changed is None else changed), load_file(whole)))
    return path


def assert_refused(path: Path, message: str | None = None) -> None:
    with pytest.raises(FileError, match=message) as raised:
        ModelFile.load(path)
    assert repr(str(path)) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_is_the_same_after_saving(whole: Path, tmp_path: Path) -> None:
    file = ModelFile.load(whole)
    file.save(tmp_path / "again.safetensors")
    again = ModelFile.load(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == whole.read_bytes()
    assert replace(again, tensors={}) == replace(file, tensors={})
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in file.tensors.items())
    assert file.classes == ("0", "1", "2")
    assert file.test is not None
    assert file.test["n"] == 12


def test_a_module_has_the_file_s_weights_and_can_be_trained_on(whole: Path) -> None:
    file = ModelFile.load(whole)
    module = file.module()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, file.tensors[name])
    assert not any(parameter.is_meta for parameter in module.parameters())
    module(torch.zeros(2, 3, 8, 8)).sum().backward()


def test_a_file_is_read_without_goodfit(whole: Path) -> None:
    tensors = load_file(whole)
    assert tensors.keys() == ModelFile.load(whole).tensors.keys()
    assert document_of(whole)["format"] == 1


def test_weights_that_share_memory_or_lie_in_another_order_are_saved(whole: Path, tmp_path: Path) -> None:
    file = ModelFile.load(whole)
    name = next(name for name, tensor in file.tensors.items() if tensor.ndim == 2)
    turned = {**file.tensors, name: file.tensors[name].t().contiguous().t()}
    replace(file, tensors=turned).save(tmp_path / "turned.safetensors")
    assert (tmp_path / "turned.safetensors").read_bytes() == whole.read_bytes()


def test_equal_runs_give_equal_files_that_know_nothing_of_where_and_when(tmp_path: Path) -> None:
    files = []
    for place in ("here", "there"):
        for row in range(20):
            path = tmp_path / place / "pictures" / "ab"[row % 2] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (row, 120 * (row % 2), 0)).save(path)
        settings = SETTINGS | {"data.name": str(tmp_path / place / "pictures"), "data.processes": 1 + len(files)}
        files.append(run_through(None, tmp_path / place / f"run of {place}", settings).model)
        time.sleep(0.01)
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], "pt") as file:
        header = str(file.metadata())
    for word in ("/", str(tmp_path.name), "run of", time.strftime("%Y-%m"), torch.__version__, platform.node() or "/"):
        assert word not in header, word


def test_every_byte_counts(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = whole.read_bytes()
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    header = int.from_bytes(content[:8], "little") + 8

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(st.one_of(st.integers(0, header - 1), st.integers(header, len(content) - 1)), st.integers(1, 255))
    def flip(place: int, mask: int) -> None:
        path.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
        assert_refused(path)

    flip()
    for place in (*range(40), *range(content.index(b"sha256"), content.index(b"sha256") + 90), header - 1, header):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :])
        assert_refused(path)
    path.write_bytes(content)
    ModelFile.load(path)


def test_a_file_that_is_cut_or_goes_on_is_refused(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    path = tmp_path / "model.safetensors"
    for size in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert_refused(path)
    path.write_bytes(content + b"\0")
    assert_refused(path, "is damaged: its SHA-256 does not match its content; get a fresh copy")


@pytest.mark.parametrize("size", [0, 1, 2, 64, (64 << 20) + 1, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_refused(whole: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(size.to_bytes(8, "little") + whole.read_bytes()[8:])
    assert_refused(tmp_path / "model.safetensors")


HEADERS = {
    "not JSON": "{{",
    "a list": "[]",
    "no metadata": "{}",
    "metadata of another kind": '{"__metadata__": 3}',
    "another program's metadata": '{"__metadata__": {"format": "pt"}}',
    "a document that is not text": '{"__metadata__": {"goodfit": {}}}',
    "deep": "[" * 100_000,
    "deep document": json.dumps({"__metadata__": {KEY: "[" * 100_000}}),
    "a number too long": '{"__metadata__": {"goodfit": "' + "9" * 5_000 + '"}}',
    "twice": '{"__metadata__": {"goodfit": "{}", "goodfit": "{}"}}',
    "no digest": '{"__metadata__": {"goodfit": "{}"}}',
    "a digest that is none": json.dumps({"__metadata__": {KEY: json.dumps({"sha256": 3})}}),
    "a digest that is no text": json.dumps({"__metadata__": {KEY: json.dumps({"sha256": "\ud800" * 64})}}),
    "an empty digest": json.dumps({"__metadata__": {KEY: json.dumps({"sha256": ""})}}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    header = HEADERS[name].encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert_refused(tmp_path / "model.safetensors", "was not made by goodfit|has no SHA-256|is not where it belongs")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert_refused(tmp_path / "other.safetensors", "was not made by goodfit; convert it, or name another file")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    assert_refused(tmp_path / "weights.pth", "is not a model file; name a .safetensors file or a run folder")
    assert_refused(tmp_path / "none.safetensors", "there is no model file .*none.safetensors")
    assert_refused(tmp_path, "cannot read the model file .*: Is a directory")


def test_a_name_that_stands_twice_is_refused(whole: Path, tmp_path: Path) -> None:
    text = json.dumps(document_of(whole) | {"sha256": BLANK})
    path = tmp_path / "model.safetensors"
    path.write_bytes(signed('{"task": "regression", ' + text[1:], load_file(whole)))
    assert_refused(path, "was not made by goodfit")


def test_a_file_of_a_newer_goodfit_is_named_as_such(whole: Path, tmp_path: Path) -> None:
    path = rewritten(whole, tmp_path / "model.safetensors", lambda document: document.update(format=2))
    assert_refused(path, "has format 2, and this goodfit reads 1; update goodfit")


# Where each change of a document is made, and what it is.
HOSTILE: dict[str, tuple[list[str], Any]] = {
    "another task": (["task"], "detection"),
    "outputs for another task": (["outputs"], "value"),
    "unknown outputs": (["outputs"], "probably"),
    "unknown precision": (["precision"], "fp4"),
    "a class twice": (["classes"], ["a", "b", "a"]),
    "a class too few": (["classes"], ["a", "b"]),
    "classes that are numbers": (["classes"], [0, 1, 2]),
    "another input": (["architecture", "input_shape"], [3, 9, 9]),
    "too many outputs": (["architecture", "num_outputs"], 10**30),
    "weights from the network": (["architecture", "arguments", "pretrained"], True),
    "another transform": (["transform", "kind"], "sound"),
    "half a transform": (["transform"], {"kind": "image"}),
    "an infinite picture": (["transform", "height"], float("inf")),
    "a scale of nothing": (["target_scale", "std"], 0.0),
    "a scale that is no number": (["target_scale", "mean"], float("nan")),
    "a scale beyond floats": (["target_scale", "mean"], 10**400),
    "no configuration": (["training"], {}),
    "a test that is no result": (["test"], 0.99),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_document_that_cannot_be_so_is_refused(name: str, whole: Path, tmp_path: Path) -> None:
    keys, value = HOSTILE[name]

    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    assert_refused(rewritten(whole, tmp_path / "model.safetensors", change), "not a whole goodfit model file|newer goodfit")


def test_what_of_a_document_cannot_be_so_is_named(whole: Path, tmp_path: Path) -> None:
    path = rewritten(whole, tmp_path / "model.safetensors", lambda document: document.update(task="detection"))
    assert_refused(path, r"is not a whole goodfit model file: .*its task cannot be so.*; get a fresh copy")


def test_a_document_of_which_a_part_is_missing_is_refused(whole: Path, tmp_path: Path) -> None:
    for key in document_of(whole).keys() - {"sha256", "format"}:
        path = rewritten(whole, tmp_path / f"{key}.safetensors", lambda document, key=key: document.pop(key) and None)
        assert_refused(path, "is not a whole goodfit model file")


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ([5], "do not fit the architecture mlp"),
        ([4, 4], "do not fit the architecture mlp"),
        ([10**12], "do not fit the architecture mlp"),  # found out before anything is allocated
        ([10**30], "the model file's mlp cannot be built"),
        ([1] * 20_000, "do not fit the architecture mlp: it asks for more than the file has"),  # nor built for minutes
        ([-1], "is not possible for mlp"),
        ("wide", "is not possible for mlp"),
        ([[]], "is not possible for mlp"),
        (None, "is not possible for mlp"),
    ],
)
def test_a_model_that_the_weights_do_not_fit_is_refused(whole: Path, tmp_path: Path, hidden: object, message: str) -> None:
    path = rewritten(
        whole, tmp_path / "m.safetensors", lambda document: document["architecture"]["arguments"].update(hidden=hidden)
    )
    with pytest.raises(InputError, match=message) as raised:
        ModelFile.load(path).module()
    assert "\n" not in str(raised.value)


def test_a_library_s_model_that_is_larger_than_the_file_is_not_built(whole: Path, tmp_path: Path) -> None:
    other = {"name": "torchvision/vit_h_14", "arguments": {}}
    path = rewritten(whole, tmp_path / "m.safetensors", lambda document: document["architecture"].update(other))
    with pytest.raises(FileError, match="do not fit the architecture torchvision/vit_h_14: it asks for more than the file has"):
        ModelFile.load(path).module()


def test_weights_of_another_kind_are_named(whole: Path) -> None:
    file = ModelFile.load(whole)
    name = min(file.tensors)
    with pytest.raises(FileError, match=rf"'{name}' is float64 .*, and should be float32"):
        replace(file, tensors={**file.tensors, name: file.tensors[name].double()}).module()
    with pytest.raises(FileError, match=rf"'{name}' is missing, and should be float32"):
        replace(file, tensors={key: tensor for key, tensor in file.tensors.items() if key != name}).module()
    with pytest.raises(FileError, match=r"'added' is float32 \(1,\), and should be left out"):
        replace(file, tensors={**file.tensors, "added": torch.zeros(1)}).module()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_a_signed_document_works_or_is_refused(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("hostile") / "model.safetensors"

    def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
        return [here, *(place for key, item in inside for place in places(item, (*here, key)))]

    document = document_of(whole)
    known = [place for place in places(document) if place and place[0] not in ("sha256", "training", "val", "test")]

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(known), JSON)
    def replace_one(place: tuple[Any, ...], value: Any) -> None:
        def change(document: Any) -> None:
            for key in place[:-1]:
                document = document[key]
            document[place[-1]] = value

        rewritten(whole, path, change)
        with suppress(InputError):
            model = ModelFile.load(path).trained_model(torch.device("cpu"))
            model(torch.zeros(1, *model.transform.input_shape, dtype=torch.uint8))

    replace_one()


def start(data: Any, model: Path, **more: Any) -> Any:
    asked = {**SETTINGS, "model.name": str(model), **more}
    del asked["model.hidden"]
    return plan(request({"train": data}, Path("out"), asked), silent())


def test_training_goes_on_from_a_model_file(whole: Path) -> None:
    made = start(tiny_pictures(seed=1), whole)
    file = ModelFile.load(whole)
    assert made.config.model.name == "mlp"
    assert made.config.model.arguments["hidden"] == [4]
    module = make_session(made, Ranks(), lambda: False).state.model
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, file.tensors[name])
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_training_on_data_of_another_form_is_refused(whole: Path) -> None:
    for data in (tiny_pictures(side=9), tiny_pictures(classes=2)):
        with pytest.raises(ModelError, match=r"holds mlp for inputs \(3, 8, 8\) and 3 outputs, and the data need inputs"):
            start(data, whole)


def test_a_start_with_other_arguments_is_refused(whole: Path) -> None:
    file = ModelFile.load(whole)
    other = replace(file.architecture, arguments=file.architecture.arguments | {"hidden": [9]})
    with pytest.raises(
        ModelError, match=r"holds mlp with .*\[4\].* the run asks for mlp with .*\[9\].*; leave the model's own"
    ):
        file.check_start(other)


def test_a_damaged_start_is_refused_before_anything_is_written(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole, tmp_path / "model.safetensors")
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(FileError, match="is damaged"):
        run_through({"train": tiny_pictures()}, tmp_path / "run", {"model.name": str(tmp_path / "model.safetensors")})
    assert not (tmp_path / "run").exists()


def test_the_weights_of_a_loaded_model_lie_where_torch_would_put_them(whole: Path) -> None:
    """So that it gives the very numbers that it gave in training: products round otherwise in memory that begins elsewhere."""
    module = ModelFile.load(whole).module()
    assert all(tensor.data_ptr() % 64 == 0 for tensor in module.state_dict().values())
