"""The buckets of MPNet's distances, against the logarithms that upstream takes."""

from __future__ import annotations

import math

import pytest

from mpnet import BUCKETS, bucket


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (0, 0), (-1, 1), (-7, 7), (-8, 8), (1, 17), (7, 23), (8, 24),
        # Where a logarithm is a whole number, and float32 could fall on either side.
        (-15, 9), (-16, 10), (-31, 11), (-32, 12), (-63, 13), (-64, 14), (-127, 15), (-128, 15),
        (16, 26), (32, 28), (64, 30), (128, 31), (511, 31), (-511, 15),
    ],
)  # fmt: skip
def test_a_distance_has_upstreams_bucket(distance: int, expected: int) -> None:
    """Expected: MPNetEncoder.relative_position_bucket of transformers 5.23.0, run."""
    assert bucket(distance) == expected


def test_buckets_between_are_the_logarithms() -> None:
    seen = set()
    for distance in range(-511, 512):
        apart = abs(distance)
        seen.add(bucket(distance))
        if apart >= 8 and apart.bit_count() > 1:  # powers of two are in the test above
            wider = int(math.log(apart / 8) / math.log(128 / 8) * 8)
            assert bucket(distance) == (16 if distance > 0 else 0) + min(8 + wider, 15)
    assert seen == set(range(BUCKETS)) - {16}  # nothing is zero places after itself
