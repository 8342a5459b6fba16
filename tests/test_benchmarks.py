"""The benchmark suite: its command, its files, its counts. What it measures is not asserted here."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import events as eventful
from benchmarks import graphs as clocks
from benchmarks import hlo, results
from benchmarks.peers import job, ours, plain_jax, plain_numpy, run
from dbwjax.engine import batch, ensemble, simulate
from dbwjax.engine.simulate import World
from dbwjax.network import delays, graphs
from dbwjax.network.spanning import spanning_links
from dbwjax.policies import build_policy


def test_list_names_every_part_and_an_unknown_one_is_refused(capsys):
    assert command.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(command.PARTS)
    with pytest.raises(SystemExit):
        command.main(["stepp"])
    assert "there is no part 'stepp'" in capsys.readouterr().err


def test_parts_that_are_not_measured_keep_their_entries(tmp_path):
    file = tmp_path / "cpu.json"
    results.merge(file, "cpu", {"step": results.entry({"a": 1.0}, False), "mixing": results.entry({"b": 2.0}, False)})
    results.merge(file, "cpu", {"step": results.entry({"a": 3.0}, False)})
    parts = json.loads(file.read_text())["parts"]
    assert [parts[name]["figures"] for name in ("step", "mixing")] == [{"a": 3.0}, {"b": 2.0}]
    assert set(parts["step"]) == {"date", "commit", "quick", "cpus", "versions", "figures"}
    with pytest.raises(ValueError, match="holds results of cpu, not of gpu"):
        results.merge(file, "gpu", {})


def test_compare_prints_two_files_side_by_side(tmp_path, capsys):
    for name, value in (("a", 2.0), ("b", 3.0)):
        spread = {"median": value, "min": 0.0, "max": 9.0}
        results.merge(tmp_path / name, "cpu", {"step": results.entry({"case": {"speed": spread}}, False)})
    assert command.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["case", "/", "speed", "2", "3", "1.500"]
    assert command.main(["compare", str(tmp_path / "a"), str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_cheap_parts_run_and_a_failing_one_does_not_stop_them(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(command.PARTS, "nothing", "a part without a module")
    file = tmp_path / "out.json"
    assert command.main(["nothing", "mixing", "startup", "--quick", "--out", str(file)]) == 1
    assert "nothing failed: ModuleNotFoundError" in capfd.readouterr().out
    content = json.loads(file.read_text())
    assert set(content["parts"]) == {"mixing", "startup"}
    assert all("limit" in json.dumps(part["figures"]) for part in content["parts"].values())


def test_the_counter_reads_a_compiled_program():
    code = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P
from benchmarks import hlo
mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
def piece(a):
    moved = jax.lax.ppermute(a, "x", ((0, 1), (1, 2)))
    return moved + jax.lax.all_gather(a, "x", tiled=True).sum(axis=0) + jax.lax.psum(a[:1], "x")
program = jax.jit(jax.shard_map(piece, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False))
print(hlo.moved(program.lower(jnp.ones((8, 5))).compile().as_text(), 4))
"""
    flags = {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=command.os.environ | flags)
    assert done.returncode == 0, done.stderr
    # [2, 5] float32 to two devices; the same to three others from each of four; [1, 5] reduced and sent around.
    expected = {"collective-permute": 2 * 40.0, "all-gather": 4 * 3 * 40.0, "all-reduce": 2 * 3 * 20.0}
    assert eval(done.stdout) == expected


def test_the_counter_reads_other_spellings():
    text = """
  %p = (f32[2,3]{1,0}, bf16[4]{0}) parameter(0)
  %a = bf16[4]{0} get-tuple-element(%p), index=1
  %b = bf16[8]{0} all-gather(%a), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}
  %c = bf16[8]{0} all-gather(bf16[4]{0} %a), channel_id=1, replica_groups=[2,2]<=[4], dimensions={0}
  %d = bf16[4]{0} collective-permute(%a), channel_id=2, source_target_pairs={{0,1},{2,2}}
"""
    assert hlo.moved(text, 4) == {"all-gather": 2 * 2 * 2 * 8, "collective-permute": 8}


def test_contenders_agree_on_a_small_job(tmp_path):
    job.make(tmp_path / "job.npz", (12, 7, 10), run.links(graphs.path(4)), 5, 6)
    data = dict(np.load(tmp_path / "job.npz"))
    losses = [contender.build(data, 0.5)(0, 6) for contender in (plain_numpy, plain_jax, ours)]
    assert max(losses) - min(losses) < 1e-5
    params = [leaf + 0.1 for leaf in job.parameters(data)]
    loss, grads = job.gradient(params, data["images"][:5], data["labels"][:5])
    value, expected = jax.value_and_grad(plain_jax.loss_of)(params, (data["images"][:5], data["labels"][:5]))
    assert loss == pytest.approx(float(value), abs=1e-5)
    for mine, theirs in zip(grads, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_the_numpy_loop_is_the_same_rule():
    """Of 4,000 iterations on one graph, with delays of its own, the means that the engine has, to four standard errors
    of the difference of two independent means."""
    graph, steps = graphs.erdos_renyi(10, p=0.4, seed=0), 4000
    looped = clocks.in_numpy(graphs.adjacency(graph), spanning_links(graph)[0], steps, seed=1)
    policy, model = build_policy(clocks.RULE), delays.build_delays(clocks.DELAYS, 10, 0)
    worlds = batch.stack([World(graph, model, None, jax.random.key(0))])
    states = batch.stack_all([policy.init(graph)])
    records = ensemble.clock_batch(policy, worlds, ensemble.start(policy, worlds, states), steps)[1]
    for theirs, engine in zip(looped, (records.duration, records.active, records.missed / 10), strict=True):
        known = np.asarray(engine[0], float)
        assert theirs.mean() == pytest.approx(known.mean(), abs=4 * (2 / steps) ** 0.5 * known.std())


@pytest.mark.parametrize("name", eventful.METHODS)
def test_the_queue_in_python_trains_what_the_engine_trains(name):
    case = eventful.case_of(name, 8, 2)
    queues = [eventful.Queue(case, 60, 1, rows) for rows in (False, True)]
    after, _ = simulate.run(case.policy, case.learner, case.world, case.start, 60)
    for queue in queues:
        queue.run()
        for one, other in zip(jax.tree.leaves(queue.stack()), jax.tree.leaves(after.model.params), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
