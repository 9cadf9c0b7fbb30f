"""The safetensors format as we write it, read back by the library."""

import torch
from safetensors.torch import load, save

from goodfit.artefacts.tensor_file import DTYPES, data_chunks, header, is_finite

TENSORS = {
    "matrix": torch.randn(3, 4),
    "a.scalar": torch.tensor(2.5, dtype=torch.float64),
    "nothing": torch.empty(0, 3),
    "in another layout": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "a part": torch.arange(10)[::2],
    **{str(dtype): torch.ones(3, dtype=dtype) for dtype in DTYPES},
}


def test_the_library_reads_every_tensor_as_it_was() -> None:
    read = load(header(TENSORS, {"key": "schön"}) + b"".join(data_chunks(TENSORS)))
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_the_data_are_in_the_library_s_own_order_and_aligned() -> None:
    ours, theirs = b"".join(data_chunks(TENSORS)), save({name: tensor.contiguous() for name, tensor in TENSORS.items()})
    assert len(header(TENSORS)) % 8 == 0
    assert len(ours) == len(theirs) - 8 - int.from_bytes(theirs[:8], "little")


def test_equal_tensors_give_equal_bytes_whatever_their_order() -> None:
    turned = dict(reversed(TENSORS.items()))
    assert header(turned) == header(TENSORS)
    assert list(data_chunks(turned)) == list(data_chunks(TENSORS))


def test_what_is_not_finite_is_seen_in_every_type() -> None:
    for dtype in (dtype for dtype in DTYPES if dtype.is_floating_point):
        tensor = torch.full((2, 3, 2, 2), torch.finfo(dtype).max, dtype=dtype).to(memory_format=torch.channels_last)
        assert is_finite(tensor)
        for number in (float("nan"), float("inf"), -float("inf")):
            tensor[1, 2, 0, 1] = number
            assert not is_finite(tensor), (dtype, number)
    assert is_finite(torch.tensor([2**62]))
