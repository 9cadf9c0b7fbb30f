"""Messages: one line, however long what they speak of is."""

from goodfit.errors import MAX_NAME, unknown_name


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
