"""The comparison of all methods: a tiny one, what is concluded from it, and that the page is what its results give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import all_methods, all_methods_figures, all_methods_page
from benchmarks import all_methods_kept as kept
from benchmarks import all_methods_plan as plan
from benchmarks import all_methods_settings as settings
from benchmarks import all_methods_worlds as worlds
from benchmarks.all_methods_settings import LAWS, RATES, Scale, Sim
from dbwjax import build_delays, build_graph, train_policy
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.policies import POLICIES, build_policies

TINY = Scale(
    workers=4, batch=8, graph="ring", seconds=4.0, rows=4, laws=("exponential", "Pareto"), tuning=1, worlds=2, block=8
)
ROWS = ("adpsgd", "server")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two rows, measured."""
    where = tmp_path_factory.mktemp("kept")
    for spec in ROWS:
        all_methods.measure(spec, TINY, where)
    return where


def test_every_method_is_a_row_or_needs_an_oracle():
    rows = settings.rows_of()
    build_policies(rows)
    assert {settings.method_of(spec) for spec in rows} == set(POLICIES) - set(settings.ORACLES)


def test_tables_hold_what_the_laws_draw():
    for name, law in LAWS.items():
        table = np.asarray(worlds.delays(name, "iid", 3, 4).model.args[0])
        slow = np.asarray(worlds.delays(name, "one label", 3, 4).model.args[0])
        assert table.shape == (worlds.ROWS, 4)
        key = stream(jax.random.key(3), Stream.DELAYS)
        model = build_delays(law, 4)
        for row, worker in ((0, 0), (17, 3), (worlds.ROWS - 1, 2)):
            assert table[row, worker] == pytest.approx(float(model(key, jnp.int32(worker), jnp.int32(row))), rel=1e-6)
        np.testing.assert_array_equal(slow[:, 1:], table[:, 1:])
        np.testing.assert_allclose(slow[:, 0], settings.SLOW * table[:, 0], rtol=1e-6)


def test_the_laws_have_a_mean_of_a_second():
    for name in ("exponential", "Markov"):
        drawn = np.concatenate([np.asarray(worlds.delays(name, "iid", seed, 16).model.args[0]) for seed in range(4)])
        assert drawn.mean() == pytest.approx(1.0, abs=0.05)


def test_one_worker_alone_holds_a_label():
    labels = np.repeat(np.arange(10), 20)
    parts = worlds.partition("one label", labels, 4, 0)
    assert set(labels[parts[0]]) == {9}
    assert all(9 not in labels[part] for part in parts[1:])
    assert sorted(np.concatenate(parts)) == list(range(200))


def test_a_simulation_of_the_batch_is_the_training_of_its_world(folder):
    sims = plan.tuning_sims(TINY)
    found = kept.load(folder, "server", "tuning", sims, TINY)
    for sim in (sims[2], sims[5]):
        (own,) = [one for one in found if one.sim == sim]
        rows = train_policy(
            "server",
            worlds.task_of(TINY, sim.data, sim.seed),
            build_graph(TINY.graph, 4, TINY.graph_seed),
            worlds.delays(sim.law, sim.data, sim.seed, 4),
            "sgd",
            learning_rate=sim.rate,
            seconds=TINY.seconds,
            rows=TINY.rows,
            seed=sim.seed,
        ).rows
        assert own.hits == [round(row["test_accuracy"] * 360) for row in rows]
        assert own.end["step"] == rows[-1]["step"]
        assert own.end["wasted"] == pytest.approx(rows[-1]["wasted"], rel=1e-5)


def test_worlds_are_all_different_and_pairs_are_the_same():
    sims = [Sim("Pareto", "iid", 0.1, seed) for seed in (0, 1, settings.TUNED)]
    drew = [world["hashes"] for world in fingerprints(worlds.problem_of("server", sims, TINY))]
    for name in ("delays", "timing", "learning"):
        assert len({one[name] for one in drew}) == 3
    again = fingerprints(worlds.problem_of("adpsgd", [sims[0]._replace(rate=1.0)], TINY))
    assert again[0]["hashes"] == drew[0]


def test_what_is_kept_is_not_computed_again_and_what_changed_is(folder, monkeypatch):
    def never(*args):
        raise RuntimeError("computed")

    monkeypatch.setattr(worlds, "trained", never)
    all_methods.measure("server", TINY, folder)
    with pytest.raises(RuntimeError, match="computed"):
        all_methods.measure("server", TINY._replace(seconds=5.0), folder)


def founds(times, rate=0.1, accuracy=300, law="exponential", data="iid"):
    """A world a time, of 60 rows in 60 s; `None`: it never arrives."""
    made = []
    for seed, time in enumerate(times):
        hits = [0 if time is None or row < time else 350 for row in range(60)] + [350 if time is not None else accuracy]
        made.append(kept.Found(Sim(law, data, rate, seed), hits, dict.fromkeys(kept.ENDS, 1.0)))
    return made


def test_the_rate_is_the_one_that_is_there_first_or_else_the_most_accurate():
    scale = Scale(laws=("exponential",))
    some = [one for rate, time in zip(RATES, (None, 30, 20, 25), strict=True) for one in founds([time] * 5, rate)]
    none = [
        one
        for rate, hits in zip(RATES, (100, 200, 150, 120), strict=True)
        for one in founds([None] * 5, rate, hits, data="one label")
    ]
    assert all_methods_figures.best_rates(some + none, scale) == {
        ("exponential", "iid"): 0.3,
        ("exponential", "one label"): 0.1,
    }


def test_groups():
    spread = np.array([1, 2, 0, 3, 1, 2, 0, 1, 2, 3])
    test = {
        "adpsgd": founds(10 + spread),
        "near": founds(10 + spread[::-1]),
        "far": founds(30 + spread),
        "some": founds([40, None] * 5),
        "never": founds([None] * 10),
    }
    cell = all_methods_figures.Cell("exponential", "iid", Scale(), {}, test, {}, {})
    assert cell.fastest() == {"adpsgd", "near"}
    assert cell.most_accurate() == {"adpsgd", "near", "far"}
    assert cell.order == ["adpsgd", "near", "far", "some", "never"]
    assert [cell.against(spec, 4) for spec in ("near", "far", "some", "never")] == ["equal", *["slower"] * 3]


def test_the_simultaneous_level_is_students_quantile():
    limits = all_methods_figures.widened({"estimate": 1.0, "low": 0.0, "high": 2.0, "clusters": 10}, 5, log=False)
    # Student's with 9 degrees of freedom: 2.821 at 99 %, 2.262 at 97.5 %, as tables print them.
    assert limits == pytest.approx((1 - 2.821 / 2.262, 1 + 2.821 / 2.262), abs=1e-3)


def test_a_page_of_two_rows(folder, monkeypatch):
    monkeypatch.setattr(all_methods_page, "rows_of", lambda: [*ROWS, "token"])
    made = all_methods_page.generated(folder, TINY)
    assert "Not measured yet: `token`." in made
    assert made.count("### ") == 1 + len(TINY.laws) * 2 + 2
    assert "\n**`server`** (server;" in made
    assert "\n### MNIST\n\nNot measured yet" in made


def test_the_page_is_what_the_results_give():
    page = all_methods_page.PAGE.read_text()
    assert all_methods_page.updated(page) == page


def test_bad_input_is_one_line(capsys):
    for name, said in (("admm", "needs an oracle"), ("adpsdg", "there is no row 'adpsdg'")):
        assert all_methods.main(["--only", name]) == 2
        assert said in capsys.readouterr().err


def test_mnist_is_left_out_where_it_is_not(tmp_path, capsys):
    assert not all_methods.measure_mnist(settings.MNIST._replace(data_dir=str(tmp_path)), tmp_path)
    assert "MNIST is left out: " in capsys.readouterr().out
