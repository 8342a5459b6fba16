"""README and the page of performance say what is true: the Python runs, the table is the table, the figures are those
of the committed results."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex

import numpy as np
import pytest

from benchmarks import results, rule_table
from dbwjax import train_policy
from dbwjax.cli import replay, report, sweep, train
from dbwjax.cli.arguments import parse
from dbwjax.experiments.blocks import Block
from dbwjax.experiments.presets import quickstart as quickstart_preset
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.experiments.sweep.clocks import clock_rows
from dbwjax.policies import POLICIES
from dbwjax.report.digits import interval_text
from dbwjax.report.intervals import Time, ratio
from tests import methods, readme_commands
from tests.readme import RECORD, ROOT, blocks, text

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """README's Python, run from top to bottom with little time and few worlds; its names, and what it printed."""
    folder, names, printed = tmp_path_factory.mktemp("python"), {}, io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for block in blocks("python"):
            exec(re.sub(r"\bseconds=\d+", "seconds=12", re.sub(r"\bseeds=\d+", "seeds=2", block)), names)
    return names, printed.getvalue(), folder


def test_the_python_runs(python):
    names, printed, folder = python
    assert list(names["found"].summary["policies"]) == ["dybw", "fastest:k=6", "full"]
    assert len(names["found"].worlds) == 2
    assert (folder / "rules.png").stat().st_size > 20_000
    assert "T = 12.0 s, the same for all policies. Worlds: 2 drawn, 2 distinct" in printed
    assert names["mine"].summary["policies"]["majority"]["iteration_ratio"]["estimate"] > 1


def test_the_rule_of_ten_lines_is_fastest(python):
    names, _, _ = python
    where = ("quadratic", "ring", "pareto:alpha=2", "sgd")
    mine, built_in = (
        train_policy(rule, *where, workers=10, steps=12, eval_every=4).rows
        for rule in (names["gossip"](names["majority"]()), "fastest:k=6")
    )
    assert len(mine) == 4
    learned = ("train_loss", "test_loss", "consensus_distance")  # two programs: the same to rounding
    for row, other in zip(mine, built_in, strict=True):
        assert {**row, "wall_time": 0} | dict.fromkeys(learned) == {**other, "wall_time": 0} | dict.fromkeys(learned)
        for name in learned:
            assert row[name] == other[name] or row[name] == pytest.approx(other[name], rel=1e-6)


def quickstart():
    return json.loads(RECORD.read_text())


SHOWN = pytest.mark.parametrize("page", ["README.md", "docs/concepts/idea.md"])


@SHOWN
def test_its_first_figures_are_the_committed_result(page):
    shown = (ROOT / page).read_text()
    kept = quickstart()
    assert any(line.endswith(kept["command"]) for line in commands())
    assert len(kept["worlds"]) == 10
    assert f"| rule | time to {kept['summary']['target_accuracy']} |" in shown
    for spec, facts in kept["summary"]["policies"].items():
        ratio = "1" if facts["ratio"] is None else interval_text(facts["ratio"])
        reached, of = facts["reached"]
        cells = (f"{facts['time_to_target']:.0f} s", ratio, f"{reached} of {of}", f"{facts['test_accuracy']:.3f}")
        assert "| " + " | ".join([f"`{spec}`", *cells, f"{facts['iteration_length']:.2f} s"]) + " |" in shown
    dybw = kept["summary"]["policies"]["dybw"]
    shorter, sooner = (f"{dybw[name]['estimate']:.2f}" for name in ("iteration_ratio", "ratio"))
    assert f"iterations are {shorter} times shorter than `full`'s" in words(shown)
    assert f"reaches the target {sooner} times sooner, not {shorter}." in words(shown)
    assert f"{kept['summary']['cells'][0]['budget'][0]:.0f} s of virtual time" in words(shown)


@SHOWN
def test_its_other_pairs_follow_from_the_committed_times(page):
    shown = words((ROOT / page).read_text())
    kept = quickstart()
    times, drew = kept["times to target"], [world["hashes"] for world in kept["worlds"]]

    def over(rival, ours):
        return interval_text(ratio(*([Time(each) for each in times[spec]] for spec in (rival, ours)), drew, "learning"))

    # The same words as the summary's, which the times must give, too.
    assert over("full", "dybw") == interval_text(kept["summary"]["policies"]["dybw"]["ratio"])
    sooner = sum(one < other for one, other in zip(times["fastest:k=6"], times["dybw"], strict=True))
    assert f"{over('dybw', 'fastest:k=6')} times sooner than `dybw`, in {sooner} of 10 worlds" in shown
    assert f"over it `dybw` gains {over('full:barrier=neighbours', 'dybw')}" in shown


def test_the_committed_result_is_that_of_these_clocks():
    config = quickstart_preset()
    (problem,) = problems(of_seeds(config), clocks_only=True)
    kept = quickstart()["summary"]["policies"]
    assert tuple(kept) == config.policies
    for number, spec in enumerate(("dybw", "full")):
        block = Block(number, spec, 0, np.arange(config.seeds))
        rows = clock_rows(problem, block, np.full(config.seeds, config.seconds), config.seeds, None)
        for name in ("iteration_length", "step"):
            mean = np.mean([row[name] for row in rows])
            assert mean == pytest.approx(kept[spec][{"step": "iterations"}.get(name, name)], rel=1e-5)


def test_a_run_that_finds_other_figures_is_noticed(tmp_path, monkeypatch):
    kept = quickstart()
    monkeypatch.setattr(readme_commands, "record", lambda run: json.loads(json.dumps(kept)))
    assert readme_commands.differences(tmp_path) == []
    found = json.loads(json.dumps(kept))
    found["summary"]["policies"]["full"]["time_to_target"] *= 1.1
    monkeypatch.setattr(readme_commands, "record", lambda run: found)
    assert [line.split(":")[0] for line in readme_commands.differences(tmp_path)] == ["full, time_to_target"]


def test_the_table_of_methods_is_the_table():
    section = text().split("## Choosing a rule")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, flags=re.MULTILINE)
    assert rows == [(name, POLICIES[name].summary, use) for name, use in methods.FIRST.items()]
    assert f"All {len(POLICIES)} methods" in section


def test_it_shows_the_methods_that_people_ask_for_first():
    section = text().split("## Choosing a rule")[1].split("\n## ")[0]
    assert methods.readme() in section
    assert "(docs/methods.md)" in section


def commands():
    return [line for block in blocks("sh") for line in block.splitlines() if line]


def words(text):
    """A text without line breaks."""
    return " ".join(text.split())


SMALL = {"--seconds": "10", "--steps": "6", "--eval-every": "3", "--seeds": "2", "--rows": "5"}


def small(line, out):
    """A command's words with the budgets of `SMALL`, into another folder."""
    typed = shlex.split(line.split("python -m ")[-1])[1:]
    for at, word in enumerate(typed[:-1]):
        if word in SMALL:
            typed[at + 1] = SMALL[word]
    if "--out" in typed:
        typed[typed.index("--out") + 1] = str(out)
    return [*typed, "--no-progress"]


@pytest.fixture(scope="module")
def slow_run(tmp_path_factory):
    """README's first comparison of its own, run small."""
    (line,) = (line for line in commands() if line.endswith("--out runs/slow"))
    out = tmp_path_factory.mktemp("runs") / "slow"
    assert train.main(small(line, out)) == 0
    return out


def test_every_command_is_known():
    kinds = [re.search(r"python -m (\w+(?:\.\w+)?)[^&]*$", line)[1] for line in commands()]
    expected = {"dbwjax.train": 3, "pytest": 1, "dbwjax.replay": 1, "dbwjax.report": 1, "dbwjax.sweep": 1}
    assert {kind: kinds.count(kind) for kind in kinds} == expected
    for line in commands():
        if "dbwjax.train" in line:
            parse(shlex.split(line.split("dbwjax.train")[-1]))
        if "dbwjax.sweep" in line:
            sweep.parse(shlex.split(line.split("dbwjax.sweep")[-1]))


def test_its_comparison_runs_and_is_replayed(slow_run, capsys):
    assert list(json.loads((slow_run / "summary.json").read_text())["policies"])[-1] == "full"
    assert replay.main([str(slow_run)]) == 0
    assert capsys.readouterr().out.count("in the recorded order") == 6
    assert report.main([str(slow_run)]) == 0
    assert train.main(["--list"]) == 0


def test_the_run_folder_holds_what_its_page_says(slow_run):
    section = (ROOT / "docs" / "run-folder.md").read_text().split("## Make one")[1].split("\n## ")[0]
    names = [name for line in section.splitlines() if line.startswith("| `") for name in line.split("|")[1].split(", ")]
    named = [name.strip(" `/") for name in names]
    assert len(named) == 12
    for name in named:
        assert list(slow_run.glob(name)), name
    for entry in slow_run.iterdir():
        assert entry.name == ".lock" or any(entry.match(name) for name in named), entry.name


def test_the_page_of_rules_has_the_tables_of_the_committed_results():
    page = rule_table.PAGE.read_text()
    assert rule_table.updated(page) == page


def test_the_tables_of_rules(tmp_path, monkeypatch, capsys):
    facts = {"time to target": 50.0, "reached": 2, "ratio": 1.2871, "low": 1.0712, "high": 1.5462, "bound": None}
    facts |= {"accuracy at T": 0.91, "iteration length": 1.5}
    short = {**facts, "time to target": None, "reached": 1, "ratio": 2.019, "high": None, "bound": "at least"}
    full = {**facts, **dict.fromkeys(("ratio", "low", "high"))}
    slope = {"workers": [1, 4], "iterations": [400.0, 110.0], "seconds": [600.0, 200.0]}
    slope |= {"slope of iterations": -0.93, "slope of seconds": -0.79}
    figures = {
        "ring": {"dybw": facts, "backup:b=1": short, "full": full},
        "pairs": {"dybw over full": {"ring": facts}},
        "speed-up": {"dybw": slope},
    }
    monkeypatch.setattr(rule_table, "PAGE", tmp_path / "page.md")
    rule_table.PAGE.write_text("a\n<!-- table -->\nold\n<!-- /table -->\nz\n")
    results.merge(tmp_path / "cpu.json", "cpu", {"which_rule": results.entry(figures, True)})
    assert rule_table.main(["--write", str(tmp_path / "cpu.json")]) == 0
    page = rule_table.PAGE.read_text()
    for line in (
        *("| `dybw` | 1.29 [1.07, 1.55] |", "| `backup:b=1` | at least 2.01 [1.07, -] (1 of 2) |", "| `full` | - |"),
        "| `dybw` over `full` | 1.29 [1.07, 1.55] |",
        *("| `dybw` | 50.0 |", "| `backup:b=1` | - |", "| `dybw` | 400, 600 s | 110, 200 s | -0.93 | -0.79 |"),
    ):
        assert f"\n{line}\n" in page
    assert page.startswith("a\n")
    assert page.endswith("\nz\n")
    assert "old" not in page
    assert rule_table.main([str(tmp_path / "none.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def speeds():
    """The page of performance."""
    return (ROOT / "docs" / "performance.md").read_text()


def test_its_speeds_are_the_committed_results():
    parts = json.loads((ROOT / "benchmarks" / "results" / "cpu-2-cores.json").read_text())["parts"]
    step, mixing, memory = (parts[name]["figures"] for name in ("step", "mixing", "memory"))
    large, small, many = (step[f"N={n}, batch={b}"] for n, b in ((10, 1024), (64, 32), (256, 32)))
    of, over = "fraction of the matrix product", "speed-up over plain JAX"
    for case in (large, small):
        ours, alone = case[of]["dbwjax"]["median"], case[of]["gradient alone"]["median"]
        assert f"| {ours:.2f} (gradient alone: {alone:.2f}) |" in speeds()
    ratios = [case[over]["plain, gather"]["median"] for case in (small, many)]
    assert f"| {ratios[0]:.2f}, {ratios[1]:.2f} times |" in speeds()
    bandwidth = mixing["N=64, degree 4"]["bandwidth over a copy's"]["padded neighbours"]["median"]
    assert f"| {bandwidth:.2f} | 0.7 |" in speeds()
    assert f"| {memory['resident, in multiples of the parameters']:.2f} | 3.2 |" in speeds()


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
    ledger = timed["speed with all that a sweep records, over that"]["median"]
    for cell in (*cells, f"{ledger:.2f}", f"{alone:.2f} ({by_jax:.2f})", f"{spread:.2f} ({beside:.2f})"):
        assert f"| {cell} |" in speeds()


def test_its_figures_of_the_grid_are_the_committed_results():
    parts = json.loads((ROOT / "benchmarks" / "results" / "cpu-2-cores.json").read_text())["parts"]
    grid = parts["grid"]["figures"]
    for many in ("alone", "5 worlds"):
        ratios = [
            grid[f"grid over iterations, {many}"][rule]["wall"]["median"]
            for rule in ("dybw", "full:barrier=neighbours")
        ]
        assert f"| {ratios[0]:.2f}, {ratios[1]:.2f} times the time | 1.05 |" in speeds()
    assert f"| {grid['the quickstart, cold']['wall [s]']['median']:.0f} s | 60 s |" in speeds()


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
    assert f"| {many} ({one}) |" in speeds()


def test_its_picture_and_files_exist():
    for path, anchor in re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)\)", text()):
        assert (ROOT / path).exists(), path
        if anchor:  # a heading's words, joined
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w-]", "", each.lower().replace(" ", "-")) for each in headings], anchor
    for page in (text(), *(file.read_text() for file in (ROOT / "docs").rglob("*.md"))):
        for path in re.findall(r"`((?:dbwjax|tests|benchmarks|docs)/[\w/.-]+)`", page):
            assert (ROOT / path).exists(), path


def test_it_opens_with_what_it_is_a_picture_and_two_commands():
    opening, install = text().split("\n## ")[:2]
    assert opening.startswith("# dbwjax\n\nIn decentralised training, whom should fast workers wait for?")
    assert opening.count("![") == 1
    assert install.count("```sh") == 2
    assert "python -m pytest" in install


def test_it_is_short():
    assert len(text().split()) <= 1200


def test_the_suite_is_a_stage_of_ci():
    from tests.readme_commands import SUITE

    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert SUITE in [line for block in blocks("sh") for line in block.splitlines()]
    assert lines[lines.index("stage 'main suite: README, second command'") + 1] == SUITE
