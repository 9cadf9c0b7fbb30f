"""JSON of files: read, or refused before it takes memory."""

import json
from pathlib import Path

import pytest

from goodfit.artefacts.document import MAX_PARTS, check_tensor_table, parse_finite, parse_json


def test_documents_as_large_as_real_ones_are_read() -> None:
    tensor = {"dtype": "F32", "shape": [64, 64, 3, 3], "data_offsets": [0, 147456]}
    table = {f"model.layer.{number}.weight": tensor for number in range(20_000)}
    assert parse_json(json.dumps(table)) == table
    names = [f"adult.csv:{number}" for number in range(1_000_000)]
    assert parse_finite(json.dumps({"examples": names}, indent=1)) == {"examples": names}


@pytest.mark.parametrize("part", ["[],", "{},", "0,", '"ab",', '{"a":0},'])
def test_more_parts_than_a_file_can_need_are_refused(part: str) -> None:
    text = "[" + part * MAX_PARTS + "0]"
    with pytest.raises(ValueError, match="more parts than such a file can need"):
        parse_json(text)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1e999", "9" * 21, "1" + "0" * 5_000])
def test_a_number_that_no_run_has_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match=r"is no number that a run can have$") as raised:
        parse_finite(f"[{number}]")
    assert len(str(raised.value)) < 100


def test_numbers_stay_what_they_are() -> None:
    values = [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.1, 1e-320, 1.7976931348623157e308]
    assert parse_finite(json.dumps(values)) == values


def test_a_table_of_tensors_is_looked_at_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for size, text in ((2, b"{}"), (2**63, b"{}"), (20 << 20, b"{}"), (6, b"[0,0]]"), (2, b"\xff\xff")):
        path.write_bytes(size.to_bytes(8, "little") + text)
        if size == 2 and text == b"{}":
            check_tensor_table(path)
        else:
            with pytest.raises(ValueError, match=r"header of state\.safetensors|Extra data|can't decode"):
                check_tensor_table(path)
