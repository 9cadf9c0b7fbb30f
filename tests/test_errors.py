"""Messages: one line, however long what they speak of is."""

import pytest

from goodfit.errors import MAX_NAME, ConfigError, in_python, in_python_words, unknown_name


def test_the_nearest_names_are_offered_or_else_all() -> None:
    assert unknown_name("model", "resnet81", ["mlp", "resnet18"]) == "unknown model 'resnet81'; did you mean resnet18?"
    assert unknown_name("model", "x", ["mlp", "lenet"]) == "unknown model 'x'; choose from: lenet, mlp"
    assert unknown_name("model", "?", map(str, range(100))).endswith(", ...")


def test_a_name_that_is_too_long_is_cut() -> None:
    assert unknown_name("model", "m" * MAX_NAME, ["mlp"]) == f"unknown model {'m' * MAX_NAME!r}; choose from: mlp"
    long = unknown_name("model", "mlp" + "x" * 1_000_000, ["mlp"])
    assert long.startswith("unknown model 'mlpxxx")
    assert "x...'" in long
    assert len(long) < 120


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("a lower rate (--lr), --set train.clip=1, or", 'a lower rate (lr=), settings={"train.clip": 1}, or'),
        ("or --set train.precision=fp32", 'or settings={"train.precision": "fp32"}'),
        ("give --data, or --set a.mean=... --set a.std=... (0", 'give data=, or settings={"a.mean": ..., "a.std": ...} (0'),
        ("--set data.skip_bad=true goes on", 'settings={"data.skip_bad": True} goes on'),
        ("set them as --set model.NAME=VALUE", 'set them as settings={"model.NAME": VALUE}'),
        ("give it by --set 'model.layers=...'", 'give it by settings={"model.layers": ...}'),
        ("it exists; choose another --out", "it exists; choose another out="),
        ("choose --model mlp", 'choose model="mlp"'),
        ("from its weights: --model 'my runs/best.safetensors'", 'from its weights: model="my runs/best.safetensors"'),
        ("use --batch-size full or a number", 'use batch_size="full" or a number'),
        ("files with --data-root DIR (DIR/x)", "files with data_root=DIR (DIR/x)"),
        ("or --val 0, and leave --device out", "or val=0, and leave device= out"),
        ("name it with --model net.py:Net, in Python model=", "name it with model="),
        ("trust its maker: --trust-pickle, in Python trust_pickle=True", "trust its maker: trust_pickle=True"),
        ("go on: goodfit resume 'my runs/1' --epochs N", 'go on: goodfit.resume("my runs/1", epochs=N)'),
        ("whole: goodfit resume runs/x-1.2", 'whole: goodfit.resume("runs/x-1.2")'),
        ("goodfit export MODEL --format state-dict", "goodfit export MODEL --format state-dict"),
        ("goodfit train DATA --dry-run shows it", "goodfit train DATA --dry-run shows it"),
        ("--a-file.csv is missing", "--a-file.csv is missing"),
    ],
)
def test_what_the_command_line_says_is_said_for_python(message: str, expected: str) -> None:
    assert in_python(message) == expected


def test_a_flag_is_called_what_the_function_at_hand_calls_it() -> None:
    assert in_python("choose another --out, or --val 0", out="path=") == "choose another path=, or val=0"
    said = "name it with --model net.py:Net, in Python model="
    assert in_python(said, model="load(path, model=...)") == "name it with load(path, model=...)"
    with pytest.raises(ConfigError, match=r"^choose another path=$"), in_python_words(out="path="):
        raise ConfigError("choose another --out")
