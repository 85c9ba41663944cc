"""TOML into dataclasses and back."""

import copy
import dataclasses
import math
from typing import Annotated, Literal

import pytest

from renga.training.cli import configs, read_experiment
from renga.training.cli._config import Described, Range, load, nearest, override, read, write
from renga.training.cli._experiment import Adam, Convnet, Digits, Experiment, Mlp, Sgd, Train
from renga.training.cli._game import GameExperiment
from renga.training.cli._gan import GanExperiment
from renga.training.cli._meta import MetaExperiment
from renga.training.cli._rl import RlExperiment

SHIPPED = configs()
KINDS = {
    "maml": MetaExperiment, "gan": GameExperiment, "digits_dcgan": GanExperiment, "digits_wgan": GanExperiment,
    "dqn": RlExperiment, "ppo": RlExperiment,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Every kind of value."""

    truth: bool
    word: str
    choice: Literal["left", "right"] = "left"
    many: tuple[float, ...] = (0.5,)
    two: Annotated[tuple[Annotated[int, Range(0)], ...], Range(2, 2)] = (1, 2)
    perhaps: float | None = None


@dataclasses.dataclass(frozen=True)
class Branch:
    """A table in a table."""

    leaf: Leaf
    number: int = 3


@dataclasses.dataclass(frozen=True)
class Tree:
    """A table in a table in a table."""

    branch: Branch


def test_a_config_reads_as_its_dataclass(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        """
        seed = 3
        data = { test_share = 0.25, label_noise = 1 }
        [net]
        name = "convnet"
        channels = [4, 5, 6]
        drop_rate = 0.5
        [optim]
        name = "sgd"
        rho = 2
        [train]
        batch_size = 10
        """,
        encoding="utf-8",
    )
    assert read(Experiment, load(path)) == Experiment(
        seed=3,
        data=Digits(test_share=0.25, label_noise=1.0),
        net=Convnet(channels=(4, 5, 6), drop_rate=0.5),
        optim=Sgd(rho=2.0),
        train=Train(batch_size=10),
    )


def test_an_integer_where_a_number_stands_is_read_as_a_float():
    optim = read(Sgd, {"learning_rate": 1, "rho": 0})
    assert (type(optim.learning_rate), type(optim.rho)) == (float, float)


def test_what_a_config_leaves_out_has_its_default():
    assert read(Experiment, {"net": {"name": "mlp"}, "optim": {"name": "adam"}}) == Experiment(net=Mlp(), optim=Adam())


@pytest.mark.parametrize("text", ["\ufeffseed = 1\n", "seed = 1\r\n", "seed = 1", "# words\nseed = 0x01 # more\n"])
def test_a_byte_order_mark_line_ends_and_comments_do_not_count(text, tmp_path):
    (tmp_path / "config.toml").write_bytes(text.encode())
    assert load(tmp_path / "config.toml") == {"seed": 1}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_says_what_it_is_for_and_its_command(name):
    first, second, *_ = SHIPPED[name].read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ")
    assert second == f"# Command: renga train configs/{name}.toml"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_reads_as_it_is_written(name, tmp_path):
    experiment = read_experiment(load(SHIPPED[name]))
    kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), Experiment)
    assert type(experiment) is kind
    (tmp_path / "config.toml").write_text(write(experiment), encoding="utf-8")
    assert read_experiment(load(tmp_path / "config.toml")) == experiment


@pytest.mark.parametrize(
    "leaf",
    [
        Leaf(truth=True, word="plain"),
        Leaf(truth=False, word='"quotes", \\ and\nlines\té😀', choice="right", many=(1e-9, 1e30, -0.0), perhaps=0.1),
        Leaf(truth=False, word="", two=(0, 10**20)),
    ],
)
def test_every_kind_of_value_reads_as_it_is_written(leaf, tmp_path):
    (tmp_path / "config.toml").write_text(write(Tree(Branch(leaf))), encoding="utf-8")
    assert read(Tree, load(tmp_path / "config.toml")) == Tree(Branch(leaf))


@pytest.mark.parametrize(
    "tables",
    [
        {"name": "lion", "learning_rate": 0.1},
        {
            "name": "chain",
            "links": [{"name": "sam", "rho": 0.5, "exclude": ["**/b"]}, {"name": "lion", "learning_rate": 1}],
        },
        {
            "name": "partition",
            "transforms": {"slow": {"name": "sgd", "learning_rate": 1e-9}, "": {"name": "adam", "learning_rate": 0.1}},
            "param_labels": {"**/w": "slow", 'all "others" é': "", "**": ""},
        },
    ],
)
def test_a_table_of_any_other_name_stays_as_it_is(tables, tmp_path):
    experiment = read(Experiment, {"net": {"name": "mlp"}, "optim": tables})
    assert experiment.optim == Described(tables)
    (tmp_path / "config.toml").write_text(write(experiment), encoding="utf-8")
    assert read(Experiment, load(tmp_path / "config.toml")) == experiment


@pytest.mark.parametrize(
    ("assignment", "tables"),
    [
        ("optim.rho=0.1", {"optim": {"name": "adam", "rho": 0.1}}),
        ("optim.name=sgd", {"optim": {"name": "sgd"}}),
        ('optim.name="sgd"', {"optim": {"name": "sgd"}}),
        (" optim . name = sgd ", {"optim": {"name": "sgd"}}),
        ("optim.name=a=b", {"optim": {"name": "a=b"}}),
        ("optim.name=", {"optim": {"name": ""}}),
        ("net.hidden=[8, 4]", {"optim": {"name": "adam"}, "net": {"hidden": [8, 4]}}),
        ("optim={name='sgd', rho=1}", {"optim": {"name": "sgd", "rho": 1}}),
        ("a.b.c=true", {"optim": {"name": "adam"}, "a": {"b": {"c": True}}}),
        ("optim.name=1\nseed=2", {"optim": {"name": "1\nseed=2"}}),
    ],
)
def test_set_replaces_one_value_and_leaves_the_tables_that_it_was_given(assignment, tables):
    given = {"optim": {"name": "adam"}}
    before = copy.deepcopy(given)
    assert override(given, [assignment]) == tables
    assert given == before


def test_set_finds_items_of_a_list_by_their_index():
    given = {"optim": {"links": [{"name": "sam", "rho": 1}, {"name": "sgd"}]}}
    assert override(given, ["optim.links.0.rho=2", "optim.links.1.learning_rate=0.1"]) == {
        "optim": {"links": [{"name": "sam", "rho": 2}, {"name": "sgd", "learning_rate": 0.1}]}
    }
    assert override({"net": {"hidden": [8, 4]}}, ["net.hidden.1=16"]) == {"net": {"hidden": [8, 16]}}


def test_the_last_of_two_sets_counts():
    assert override({}, ["seed=1", "seed=2"]) == {"seed": 2}


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (Range(0), [0, 0.0, 5, 3e38], [-1, -1e-9, math.nan, math.inf, 1e39, 10**400]),
        (Range(0, open_low=True), [1e-9, 1], [0, -0.0, -1, math.nan, math.inf]),
        (Range(0, 1), [0, 0.5, 1], [-0.1, 1.1, math.nan, -math.inf]),
        (Range(0, 1, open_low=True, open_high=True), [0.5], [0, 1]),
        (Range(1, 3), [1, 2, 3], [0, 4, "2", None, [2]]),
    ],
)
def test_a_range_holds_its_numbers_and_no_others(allowed, inside, outside):
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("num_step", ["num_steps", "batch_size"], "num_steps"),
        ("SGD", ["adam", "sgd"], "sgd"),
        ("sgd", ["Adam", "Sgd"], "Sgd"),
        ("quite another", ["adam", "sgd"], None),
        ("", ["adam"], None),
        ("adam", [], None),
    ],
)
def test_nearest_is_the_most_similar_name_if_one_is_similar(name, known, meant):
    assert nearest(name, known) == meant
