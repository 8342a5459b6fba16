"""README says what is true: its Python runs, its table is the table, its figures are those of the committed results."""

from __future__ import annotations

import json
import re

import pytest

from dbwjax.cli.arguments import parse
from dbwjax.experiments.sweep import config
from dbwjax.policies import POLICIES
from tests.readme import ROOT, blocks, text


def test_the_python_runs_and_the_rule_of_ten_lines_is_fastest(capsys):
    names: dict = {}
    for block in blocks("python"):
        exec(block, names)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["dybw", "backup:b=1", "full"]
    policy = names["build_policy"]("fastest:k=6")
    arguments = [names[name] for name in ("task", "graph", "delays")]
    built_in = names["train_policy"](policy, *arguments, names["optax"].sgd(0.1), steps=60, eval_every=20)
    for mine, theirs in zip(names["mine"].rows, built_in.rows, strict=True):
        assert {**mine, "wall_time": 0} == {**theirs, "wall_time": 0}


def test_the_table_of_methods_is_the_table():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", text(), flags=re.MULTILINE)
    assert rows == [(method.name, method.summary, method.paper) for method in POLICIES.values()]


def test_commands_are_understood():
    trained = [line for block in blocks("sh") for line in block.splitlines() if "dbwjax.train" in line]
    assert len(trained) == 3
    for line in trained:
        parse(line.split("dbwjax.train")[-1].split())
    swept = [line for block in blocks("sh") for line in block.splitlines() if "dbwjax.sweep" in line]
    assert len(swept) == 2
    for line in swept:
        config.parse(line.split("dbwjax.sweep")[-1].split())


def test_its_speeds_are_the_committed_results():
    parts = json.loads((ROOT / "benchmarks" / "results" / "cpu-2-cores.json").read_text())["parts"]
    step, mixing, memory = (parts[name]["figures"] for name in ("step", "mixing", "memory"))
    large, small, many = (step[f"N={n}, batch={b}"] for n, b in ((10, 1024), (64, 32), (256, 32)))
    of, over = "fraction of the matrix product", "speed-up over plain JAX"
    for case in (large, small):
        ours, alone = case[of]["dbwjax"]["median"], case[of]["gradient alone"]["median"]
        assert f"| {ours:.2f} (gradient alone: {alone:.2f}) |" in text()
    ratios = [case[over]["plain, gather"]["median"] for case in (small, many)]
    assert f"| {ratios[0]:.2f}, {ratios[1]:.2f} times |" in text()
    bandwidth = mixing["N=64, degree 4"]["bandwidth over a copy's"]["padded neighbours"]["median"]
    assert f"| {bandwidth:.2f} | 0.7 |" in text()
    assert f"| {memory['resident, in multiples of the parameters']:.2f} | 3.2 |" in text()


def test_its_figures_of_scale_are_the_committed_results():
    parts = json.loads((ROOT / "benchmarks" / "results" / "cpu-2-cores.json").read_text())["parts"]
    scaling, devices, many = (parts[name]["figures"] for name in ("scaling", "devices", "graphs"))
    cost = scaling["cost of a worker-step at N=4096 over N=64"]["median"]
    peak = scaling["peak memory at N=4096, in multiples of parameters and optimiser state"]
    moved = [devices[f"{count} devices"]["moved over what must cross"] for count in (2, 8)]
    timed, trained = many["timing only"], many["training"]
    over = timed["speed over the NumPy loop (4 of 1024 graphs measured)"]["median"]
    two = timed["on 2 devices, speed over the NumPy loop"]["median"]
    alone = timed["fraction of the random numbers alone"]["median"]
    by_jax = timed["fraction of the same by jax.random"]["median"]
    spread, beside = (
        trained["speed over one at a time"][name]["median"] for name in ("one on each core", "blocks of 4")
    )
    cells = (f"{cost:.2f}", f"{peak:.2f}", f"{moved[0]:.2f}, {moved[1]:.2f}", f"{over:.0f}, {two:.0f} times")
    for cell in (*cells, f"{alone:.2f} ({by_jax:.2f})", f"{spread:.2f} ({beside:.2f})"):
        assert f"| {cell} |" in text()


@pytest.mark.parametrize("layers", ["784-256-256-10", "784-10", "64-10"])
def test_its_figures_against_pytorch_are_the_committed_results(layers):
    parts = json.loads((ROOT / "benchmarks" / "results" / "cpu-2-cores.json").read_text())["parts"]
    cases = [
        parts["peers"]["figures"][f"{layers}, 4-regular, N={n}"]["dbwjax over it, by cpu second"] for n in (64, 256)
    ]
    many, one = (
        ", ".join(f"{case[name]['median']:.1f}" for case in cases)
        for name in ("PyTorch loop", "PyTorch loop, one thread")
    )
    assert f"| {many} ({one}) |" in text()


def test_its_picture_and_files_exist():
    for path in re.findall(r"\]\((?!http)([^)]+)\)", text()):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:dbwjax|tests|benchmarks)/[\w/.]+)`", text()):
        assert (ROOT / path).exists(), path


def test_it_opens_with_what_it_is_a_picture_and_two_commands():
    opening = text().split("## ")[0]
    assert opening.count("![") == 1
    assert opening.count("```sh") == 2
    assert "python -m pytest" in opening
