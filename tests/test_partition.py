import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax.tasks.partition import PARTITIONS, partition, table

LABELS = np.random.default_rng(0).integers(0, 10, 3000)


def own(held, worker):
    """A worker's samples without the padding."""
    return held.indices[worker, : held.sizes[worker]]


def assert_every_sample_once(held, count):
    everything = np.concatenate([own(held, worker) for worker in range(len(held.sizes))])
    assert sorted(everything) == list(range(count))


@pytest.mark.parametrize("spec", ["iid", "dirichlet:alpha=1", "shards:per_worker=3"])
def test_every_sample_goes_to_one_worker_and_padding_repeats_its_own(spec):
    held = partition(spec, LABELS, 7, seed=3)
    assert_every_sample_once(held, len(LABELS))
    assert held.indices.dtype == np.int32
    assert held.indices.shape == (7, held.sizes.max())
    for worker, row in enumerate(held.indices):
        np.testing.assert_array_equal(row, np.resize(own(held, worker), len(row)))


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 200), workers=st.integers(1, 50), seed=st.integers(0, 5))
def test_iid_sizes_differ_by_at_most_one(count, workers, seed):
    if workers > count:
        with pytest.raises(ValueError, match=f"use at most {count}"):
            partition("iid", np.zeros(count, int), workers, seed)
        return
    held = partition("iid", np.zeros(count, int), workers, seed)
    assert np.ptp(held.sizes) <= 1
    assert_every_sample_once(held, count)


@settings(deadline=None, max_examples=50)
@given(count=st.integers(20, 200), workers=st.integers(1, 10), per_worker=st.integers(1, 2), seed=st.integers(0, 5))
def test_shards_give_each_worker_few_classes(count, workers, per_worker, seed):
    labels = np.random.default_rng(seed).integers(0, 3, count)
    held = partition(f"shards:per_worker={per_worker}", labels, workers, seed)
    assert_every_sample_once(held, count)
    shortest, longest = count // (workers * per_worker), -(-count // (workers * per_worker))
    assert per_worker * shortest <= held.sizes.min()
    assert held.sizes.max() <= per_worker * longest
    # A shard of sorted samples meets at most one more class than the whole classes that fit into it.
    boundaries = sum(len(np.unique(labels[own(held, worker)])) for worker in range(workers))
    assert boundaries <= workers * per_worker + len(np.unique(labels)) - 1


def test_one_shard_of_ten_balanced_classes_is_one_class():
    labels = np.repeat(np.arange(10), 30)
    held = partition("shards:per_worker=1", labels, 10)
    assert sorted(int(np.unique(labels[own(held, worker)]).item()) for worker in range(10)) == list(range(10))


def class_shares(alpha, workers=5, seeds=200, members=1000):
    labels = np.zeros(members, int)
    parts = [PARTITIONS["dirichlet"](labels, workers, alpha=alpha, seed=seed) for seed in range(seeds)]
    return np.array([[len(part) for part in row] for row in parts]) / members


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_dirichlet_shares_have_the_moments_of_the_law(alpha):
    shares = class_shares(alpha)
    mean, variance = 1 / 5, (1 / 5) * (4 / 5) / (5 * alpha + 1)
    np.testing.assert_allclose(shares.mean(), mean)
    # 1,000 shares: the standard error of the variance is about 4 to 5 %.
    np.testing.assert_allclose(((shares - mean) ** 2).mean(), variance, rtol=0.2)


def test_large_alpha_is_nearly_iid():
    labels = np.repeat(np.arange(10), 100)
    held = partition("dirichlet:alpha=1e6", labels, 4)
    counts = np.array([np.bincount(labels[own(held, worker)], minlength=10) for worker in range(4)])
    assert np.abs(counts - 25).max() <= 1


def test_a_seed_names_a_draw():
    draws = [partition("dirichlet:alpha=1", LABELS, 5, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0].indices, draws[1].indices)
    assert not np.array_equal(draws[0].sizes, draws[2].sizes)


@pytest.mark.parametrize(
    ("spec", "workers", "message"),
    [
        ("iid", 0, "workers=0 is out of range; use 1 or more"),
        ("iid", 3001, "workers=3001 is more than the 3000 samples"),
        ("dirichlet:alpha=0", 4, "alpha=0 is no concentration"),
        ("dirichlet:alpha=-1", 4, "alpha=-1 is no concentration"),
        ("dirichlet:alpha=inf", 4, "alpha=inf is no concentration"),
        ("dirichlet:alpha=nan", 4, "is not a number"),
        ("dirichlet:alpha=1e-3", 40, r"leaves worker \d+ of 40 without samples; use a larger alpha, fewer workers"),
        ("shards:per_worker=0", 4, "per_worker=0 is out of range"),
        ("shards:per_worker=1000", 4, "use at most 750 with 4 workers"),
        ("dirichlett", 4, "did you mean 'dirichlet'"),
        ("dirichlet:beta=1", 4, "unknown key 'beta'"),
    ],
)
def test_impossible_partitions_are_one_line_errors(spec, workers, message):
    with pytest.raises(ValueError, match=message) as error:
        partition(spec, LABELS, workers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [np.zeros((5, 2), int), np.linspace(0, 1, 5)])
def test_labels_must_be_classes(labels):
    with pytest.raises(ValueError, match="are not classes"):
        partition("iid", labels, 2)


def test_table_pads_by_repeating():
    held = table([np.array([4]), np.array([0, 1, 2]), np.array([3, 5])])
    assert held.indices.tolist() == [[4, 4, 4], [0, 1, 2], [3, 5, 3]]
    assert held.sizes.tolist() == [1, 3, 2]
