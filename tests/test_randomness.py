"""Randomness by address."""

import itertools

import torch

from goodfit.randomness import address, generator, reseed

PLACES = [
    (0, "init"),
    (1, "init"),
    (0, "shuffle", 0),
    (0, "shuffle", 1),
    (0, "augment", 0),
    (0, "module", 1, 2),
    (0, "module", 12),
]


def test_addresses_are_numbers_of_their_own() -> None:
    numbers = [address(*place) for place in PLACES]
    assert len(set(numbers)) == len(PLACES)
    assert all(0 <= number < 2**63 for number in numbers)


def test_an_address_stays_what_it_is() -> None:
    assert address(7, "shuffle", 3) == 3161148159792645375  # runs of earlier versions are repeated by it


def test_generators_are_fresh_and_independent() -> None:
    draws = [torch.randn(50, generator=generator(*place)) for place in PLACES]
    assert torch.equal(draws[0], torch.randn(50, generator=generator(*PLACES[0])))
    for one, other in itertools.combinations(draws, 2):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.5


def test_reseeding_makes_the_default_generator_draw_again() -> None:
    reseed(0, "module", 3, 0)
    first = torch.rand(5)
    torch.rand(7)
    reseed(0, "module", 3, 0)
    assert torch.equal(torch.rand(5), first)
    assert torch.equal(torch.rand(5, generator=generator(0, "module", 3, 0)), first)
