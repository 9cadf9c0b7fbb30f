"""The configuration: layers, checks at the edge, and TOML."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from goodfit.config import NOT_BUILT, Config, Layer, dump_toml, merge, parse_assignment, read_toml
from goodfit.errors import ConfigError


def test_later_layers_win_and_each_value_knows_its_source() -> None:
    config, sources = merge(
        [
            Layer("recipe auto", {"train.epochs": 3, "optim.name": "adamw", "model.hidden": [8]}),
            Layer("--epochs", {"train.epochs": 5}),
        ]
    )
    assert (config.train.epochs, config.optim.name, config.train.batch_size) == (5, "adamw", 64)
    assert config.model.arguments == {"hidden": [8]}
    assert (sources["train.epochs"], sources["optim.name"], sources["model.hidden"]) == (
        "--epochs",
        "recipe auto",
        "recipe auto",
    )
    assert sources["train.batch_size"] == "default"
    assert sources.keys() == config.flat().keys()


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.epoch", r"unknown configuration key 'train\.epoch'; did you mean train\.epochs\b"),
        ("trian.epochs", r"unknown configuration key 'trian\.epochs'; did you mean train\.epochs\b"),
        ("epochs", r"unknown configuration key 'epochs'; "),
        ("train", r"unknown configuration key 'train'; "),
        ("train.", r"unknown configuration key 'train\.'; "),
        ("optim.", r"unknown configuration key 'optim\.'; "),
        ("train.epochs.x", r"unknown configuration key 'train\.epochs\.x'; did you mean train\.epochs\b"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        merge([Layer("--set", {key: 1})])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", NOT_BUILT)
def test_what_is_not_built_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} is not built yet .*; leave it out"):
        merge([Layer("--set", {key: 1})])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epochs", 0, r"train\.epochs = 0 \(from --set\): must be greater than or equal to 1"),
        ("train.precision", "b" * 500, r"train\.precision = 'b{79}\.\.\. \(from --set\): must be 'auto'"),
        ("train.epochs", "three", r"train\.epochs = 'three' \(from --set\): must be a valid integer"),
        ("train.epochs", 2.0, r"train\.epochs = 2\.0 \(from --set\): must be a valid integer"),
        ("train.epochs", True, r"train\.epochs = True \(from --set\): must be a valid integer"),
        ("train.batch_size", "all", r"train\.batch_size = 'all' \(from --set\): must be a valid integer or must be 'full'"),
        ("data.val", 1, r"data\.val = 1 .*: must be less than 1"),
        ("data.val", float("nan"), r"data\.val = nan .*: must be"),
        ("data.test", 0, r"data\.test = 0 .*: must be greater than 0"),
        ("data.download", "no", r"data\.download = 'no' .*: must be a valid boolean"),
        ("data.task", "ranking", r"data\.task = 'ranking' .*: must be 'auto', 'classification' or 'regression'"),
        ("optim.lr", 0, r"optim\.lr = 0 .*: must be greater than 0"),
        ("optim.lr", float("inf"), r"optim\.lr = inf .*: must be a finite number"),
        ("train.class_weights", [1.0, -1.0], r"train\.class_weights = .* must be greater than or equal to 0"),
        ("train.clip", float("nan"), r"train\.clip = nan"),
        ("checkpoint.keep", 0, r"checkpoint\.keep = 0 .*: must be greater than or equal to 1 or must be 'best' or 'all'"),
        ("transform.mean", "half", r"transform\.mean = 'half'"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_in_one_line(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        merge([Layer("--set", {key: value})])
    assert "\n" not in str(raised.value)


def test_an_error_names_the_layer_that_is_to_blame() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs = 0 \(from run/config\.toml\)"):
        merge([Layer("run/config.toml", {"train.epochs": 0}), Layer("--lr", {"optim.lr": 0.1})])


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.epochs=5", "train.epochs", 5),
        ("optim.lr=1e-3", "optim.lr", 0.001),
        ("data.download = false", "data.download", False),
        ("model.hidden=[64, 32]", "model.hidden", [64, 32]),
        ("optim.name=adamw", "optim.name", "adamw"),
        ("optim.name='adamw'", "optim.name", "adamw"),
        ("train.device=cuda:1", "train.device", "cuda:1"),
        ("data.root=/a b/c=d", "data.root", "/a b/c=d"),
        ("data.target=", "data.target", ""),
    ],
)
def test_assignments_are_toml_and_a_bare_word_is_text(text: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["train.epochs", "=5", ""])
def test_what_is_no_assignment_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--set '{text}' is not of the form section\.key=value"):
        parse_assignment(text)


values = st.fixed_dictionaries(
    {},
    optional={
        "data.target": st.text(st.characters(exclude_categories=["Cs"])),
        "data.val": st.floats(0, 0.99),
        "data.skip_bad": st.booleans(),
        "model.hidden": st.lists(st.integers(1, 9)),
        "train.batch_size": st.integers(1, 10**6) | st.just("full"),
        "train.seed": st.integers(0, 2**63 - 1),
        "train.class_weights": st.just("balanced") | st.lists(st.floats(0, 1e6)),
        "optim.lr": st.floats(1e-300, 1e300),
        "transform.mean": st.floats(-1, 1) | st.lists(st.floats(-1, 1)),
        "checkpoint.keep": st.integers(1, 9) | st.sampled_from(["best", "all"]),
    },
)


@given(values)
@settings(deadline=None, max_examples=50)
def test_a_configuration_is_the_same_after_toml(tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]) -> None:
    config, _ = merge([Layer("test", chosen)])
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    again, _ = merge([Layer("config.toml", read_toml(path))])
    assert again == config
    assert dump_toml(again) == dump_toml(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[train]\nepochs 3\n", r"'.*c\.toml' is not TOML: .*line 2"),
        ("epochs = 3\n", r"c\.toml: 'epochs' stands outside a section; write it as \[section\] and key = value"),
        ("\xff", r"is not TOML"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        read_toml(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'.*none\.toml' does not exist; a run's own is RUN/config\.toml"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"is a folder; name the file, such as .*/config\.toml"):
        read_toml(tmp_path)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "9" * 5000])
def test_a_file_that_toml_cannot_take_is_refused_and_such_a_value_is_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.toml' is not TOML"):
        read_toml(path)
    assert parse_assignment(f"model.{text.replace(' ', '')}") == ("model.x", text[4:])
