"""What cannot be run is refused on one line, before anything is compiled, and leaves nothing behind."""

import shlex
import sys
import sysconfig
from pathlib import Path

import jax
import pytest

from renga.training import cli
from renga.training.cli import _game_run, _gan_run, _meta_run, _rl_run, _run, _sweep_run, configs

BASE = """
seed = 0
[net]
name = "mlp"
hidden = [4]
[optim]
name = "adam"
rho = 0.1
[train]
num_steps = 2
"""

CHAIN = """
[net]
name = "mlp"
hidden = [4]
[optim]
name = "chain"
[[optim.links]]
name = "asam"
rho = 0.5
[[optim.links]]
name = "sgd"
learning_rate = { name = "cosine_decay_schedule", init_value = 0.1 }
"""

META = """
[method]
name = "maml"
[optim]
name = "adam"
[train]
num_steps = 6
"""

FILES = {
    "base.toml": BASE.encode(),
    "meta.toml": META.encode(),
    "sgd.toml": BASE.replace('"adam"', '"sgd"\nmomentum = 0.9').encode(),
    "chain.toml": CHAIN.encode(),
    "empty.toml": b"",
    "no_optim.toml": b'[net]\nname = "mlp"\n',
    "no_name.toml": b'[net]\nhidden = [4]\n[optim]\nname = "adam"\n',
    "list.toml": b'net = ["mlp"]\n[optim]\nname = "adam"\n',
    "tables.toml": b'[[net]]\nname = "mlp"\n[optim]\nname = "adam"\n',
    "date.toml": b"seed = 2020-02-02\n",
    "key.toml": BASE.encode() + b"num_stesp = 3\n",
    "table.toml": BASE.encode() + b"[tarin]\nnum_steps = 3\n",
    "syntax.toml": b"seed = 0\n[net\n",
    "twice.toml": b"seed = 0\nseed = 1\n",
    "prose.toml": b"Dear reader,\n",
    "picture.toml": bytes(range(256)),
    "wide.toml": BASE.encode("utf-16"),
    "deep.toml": b"seed = " + b"[" * 5000 + b"]" * 5000,
    "long.toml": b"seed = " + b"9" * 5000,
    "folder.toml/config": b"",
    "held/notes.txt": b"",
    "ended/config.toml": BASE.encode(),
    "ended/metrics.csv": b"step,loss\n1,2.0\n",
    "begun/config.toml": BASE.encode(),
    "game/config.toml": Path(configs()["gan_ring"]).read_bytes(),
    "old/config.toml": BASE.replace("hidden", "hiden").encode(),
}

# A command line, and what its message says.
REFUSED = {
    # keys
    "train key.toml": (
        'train.num_stesp: expected a key (num_steps, batch_size, report_every), got "num_stesp"',
        "Did you mean train.num_steps?",
    ),
    "train table.toml": ("tarin: expected a key (net, optim, seed, data, train, attack)", "Did you mean train?"),
    "train base.toml --set sed=1": (
        'sed: expected a key (net, optim, seed, data, train, attack), got "sed". Did you mean seed?',
    ),
    "train base.toml --set qqq=1": ('qqq: expected a key (net, optim, seed, data, train, attack), got "qqq"\n',),
    "train base.toml --set a.b.c=1": ("a: expected a key",),
    "train base.toml --set data.labelnoise=0.1": (
        "data.labelnoise: expected a key of digits",
        "Did you mean data.label_noise?",
    ),
    "train base.toml --set optim.Rho=1": ("optim.Rho: ", "Did you mean optim.rho?"),
    "train base.toml --set optim.momentum=0.9": ("optim.momentum: expected a key of adam (name, learning_rate, ",),
    "train sgd.toml --set optim.name=adam": ("optim.momentum: expected a key of adam",),
    "train base.toml --set net.channels=[4]": ("net.channels: expected a key of mlp (name, hidden)",),
    # tables
    "train empty.toml": (
        "net: expected a table, its name one of convnet, mlp, resnet, vit, lstm_lm, transformer, gru, got none",
    ),
    "train no_optim.toml": ("optim: expected a table, its name one of sgd, adam, got none",),
    "train no_name.toml": ("net.name: expected one of convnet, mlp, resnet, vit, lstm_lm, transformer, gru, got none",),
    "train list.toml": (
        'net: expected a table, its name one of convnet, mlp, resnet, vit, lstm_lm, transformer, gru, got ["mlp"]',
    ),
    "train tables.toml": ("net: expected a table", 'got [{name = "mlp"}]'),
    "train base.toml --set optim=3": ("optim: expected a table, its name one of sgd, adam, got 3",),
    "train base.toml --set train=3": ("train: expected a table, got 3",),
    "train base.toml --set data=digits": (
        'data: expected a table, its name one of digits, documentation, docstrings, got "digits"',
    ),
    # names
    "train base.toml --set optim.name=adm": (
        "optim.name: expected the name of a link or a schedule, got 'adm'. There are 'adam', ",
    ),
    "train base.toml --set optim.name=SGD": ("optim.name: expected one of sgd, adam, ", "Did you mean sgd?"),
    "train base.toml --set optim.name=lion": (
        "optim.rho: expected an argument of lion. There are 'weight_decay', 'learning_rate', ",
    ),
    "train chain.toml --set optim.links.0.roh=1": (
        "optim.links[0].roh: expected an argument of asam. There are 'rho', ",
    ),
    "train chain.toml --set optim.links.0.rho=-1": ("optim.links[0]: asam: expected rho of at least 0, got -1.0\n",),
    "train chain.toml --set optim.links.1.learning_rate=fast": (
        "optim.links[1].learning_rate: expected a number or a schedule, got 'fast'\n",
    ),
    "train chain.toml --set optim.links=[]": ("optim: chain: expected at least one link, got none\n",),
    "train chain.toml --set optim.links.2.rho=1": ("expected an index below 2 of the list optim.links, got 2\n",),
    "train chain.toml --set optim.links.one.rho=1": ("expected an index below 2 of the list optim.links, got one\n",),
    "train chain.toml --set optim.links.0.rho.x=1": ("expected optim.links.0.rho to be a table, got 0.5\n",),
    "train chain.toml --set optim.name=constant_schedule": (
        "optim.links: expected an argument of constant_schedule. There are 'value'.\n",
    ),
    "train chain.toml --set optim.links.1.momentum=2020-02-02": (
        "optim.links[1].momentum: expected text, a number, true or false, a list or a table, got datetime.date(",
    ),
    "train base.toml --set optim.name=[1]": ("optim.name: expected one of sgd, adam, got [1]",),
    "train base.toml --set net.name=cnn": (
        "net.name: expected one of convnet, mlp, resnet, vit, lstm_lm, transformer, gru, ",
        'got "cnn". Did you mean convnet?',
    ),
    "train base.toml --set net.name=true": (
        "net.name: expected one of convnet, mlp, resnet, vit, lstm_lm, transformer, gru, got true",
    ),
    "train base.toml --set data.name=mnist": (
        'data.name: expected one of digits, documentation, docstrings, got "mnist"',
    ),
    "train base.toml --set optim.schedule=cosin": (
        "optim.schedule: expected one of constant, cosine",
        "Did you mean cosine?",
    ),
    "train base.toml --set optim.schedule={}": ("optim.schedule: expected one of constant, cosine, got {}",),
    """train base.toml --set 'net={name="vit", pool="max"}'""": ('net.pool: expected one of token, mean, got "max"',),
    # networks that are none for the data
    "train base.toml --set data.name=documentation": (
        'net.name: expected one of lstm_lm, transformer where data.name is "documentation", got "mlp"\n',
    ),
    """train base.toml --set data.name=docstrings --set 'net={name="transformer"}'""": (
        'net.name: expected one of gru where data.name is "docstrings", got "transformer"\n',
    ),
    """train base.toml --set 'net={name="gru"}'""": (
        'net.name: expected one of convnet, mlp, resnet, vit where data.name is "digits", got "gru"\n',
    ),
    # integers
    """train base.toml --set 'net={name="resnet", depth=20}'""": (
        "net.depth: expected one of 18, 34, 50, 101, 152, got 20\n",
    ),
    """train base.toml --set 'net={name="resnet", depth="18"}'""": ("net.depth: expected one of 18, ", 'got "18"'),
    """train base.toml --set 'net={name="resnet", depth=18.0}'""": ("net.depth: expected one of 18, ", "got 18.0"),
    """train base.toml --set 'net={name="resnet", version=true}'""": ("net.version: expected one of 1, 2, got true",),
    """train base.toml --set 'net={name="vit", patch=3}'""": ("net.patch: expected one of 1, 2, 4, 8, got 3",),
    """train base.toml --set 'net={name="vit", features=6}'""": (
        "net.features: expected a multiple of net.num_heads = 4, got 6",
    ),
    "train documentation_transformer --set net.features=12 --set net.num_heads=4": (
        "net.features: expected a multiple of twice net.num_heads = 4, got 12",
    ),
    "train docstrings_gru --set data.length=1001": ("data.length: expected an integer in [1, 1000], got 1001",),
    "train base.toml --set train.num_steps=0": ("train.num_steps: expected an integer in [1, 2147483647], got 0",),
    "train base.toml --set train.num_steps=1.0": ("train.num_steps: expected an integer", "got 1.0"),
    "train base.toml --set train.num_steps=true": ("train.num_steps: expected an integer", "got true"),
    """train base.toml --set 'train.num_steps="5"'""": ("train.num_steps: expected an integer", 'got "5"'),
    "train base.toml --set train.report_every=-1": ("train.report_every: expected an integer", "got -1"),
    "train base.toml --set seed=-1": ("seed: expected an integer in [0, 4294967295], got -1",),
    "train base.toml --set seed=4294967296": ("seed: expected an integer in [0, 4294967295], got 4294967296",),
    "train base.toml --set seed=nan": ("seed: expected an integer", "got nan"),
    "train date.toml": ("seed: expected an integer", "got 2020-02-02"),
    # numbers
    "train base.toml --set optim.rho=-0.1": ("optim.rho: expected a number of at least 0 and finite, got -0.1",),
    "train base.toml --set optim.rho=nan": ("optim.rho: expected a number", "got nan"),
    "train base.toml --set optim.rho=inf": ("optim.rho: expected a number", "got inf"),
    "train base.toml --set optim.rho=true": ("optim.rho: expected a number", "got true"),
    "train base.toml --set optim.rho=": ("optim.rho: expected a number", 'got ""'),
    "train base.toml --set optim.rho.x=1": ("--set optim.rho.x=1: expected optim.rho to be a table, got 0.1",),
    "train base.toml --set optim.learning_rate=0": (
        "optim.learning_rate: expected a number above 0 and finite, got 0",
    ),
    "train base.toml --set optim.learning_rate=1e39": ("optim.learning_rate: expected a number above 0", "got 1e+39"),
    "train base.toml --set data.label_noise=2": ("data.label_noise: expected a number in [0, 1], got 2",),
    "train base.toml --set data.test_share=1": ("data.test_share: expected a number in (0, 1), got 1",),
    "train sgd.toml --set optim.momentum=1": ("optim.momentum: expected a number in [0, 1), got 1",),
    # lists
    "train base.toml --set net.hidden=[]": (
        "net.hidden: expected a list with a length of at least 1, each item an integer",
        "got []",
    ),
    "train base.toml --set net.hidden=8": ("net.hidden: expected a list", "got 8"),
    "train base.toml --set net.hidden=[8,0]": ("net.hidden[1]: expected an integer in [1, 2147483647], got 0",),
    "train base.toml --set net.hidden=[[8]]": ("net.hidden[0]: expected an integer", "got [8]"),
    """train base.toml --set 'net={name="convnet", channels=[1,1,1,1]}'""": (
        "net.channels: expected a list with a length in [1, 3]",
        "got [1, 1, 1, 1]",
    ),
    # sizes that the data cannot bear
    "train base.toml --set train.batch_size=1199": (
        "train.batch_size: expected at most the 1198 training images, got 1199",
    ),
    "train base.toml --set data.test_share=0.9999": (
        "data.test_share: expected some of the 1797 images on both sides, got 0.9999",
    ),
    "train base.toml --set data.test_share=1e-9": ("data.test_share: expected some of the 1797 images", "got 1e-09"),
    "train documentation_lstm --set data.test_share=1e-9": (
        "data.test_share: expected some of the ",
        " files on both sides, got 1e-09",
    ),
    "train documentation_lstm --set data.length=10000000": (
        "data.length: expected fewer than the ",
        " characters to train on and of the ",
        " held out, got 10000000",
    ),
    "train documentation_lstm --set train.batch_size=1000000": (
        "train.batch_size: expected at most the ",
        " training windows, got 1000000",
    ),
    "train docstrings_gru --set data.test_share=1e-9": (
        "data.test_share: expected some of the ",
        " docstrings of asyncio on both sides, got 1e-09",
    ),
    "train docstrings_gru --set train.batch_size=1000000": (
        "train.batch_size: expected at most the ",
        " training docstrings, got 1000000",
    ),
    # meta-learning
    "train base.toml --set data.name=sinusoids": ("method: expected a table, its name one of maml, reptile, got none",),
    "train meta.toml --set method.name=mamal": (
        'method.name: expected one of maml, reptile, got "mamal". Did you mean maml?',
    ),
    "train meta.toml --set method.inner_stesp=2": ("method.inner_stesp: expected a key of maml", "inner_steps?"),
    "train meta.toml --set method.inner_steps=-1": ("method.inner_steps: expected an integer in [0, 1000], got -1",),
    "train meta.toml --set method.inner_rate=0": ("method.inner_rate: expected a number above 0 and finite, got 0",),
    "train meta.toml --set method.learned_rates=all": (
        'method.learned_rates: expected one of none, each, steps, got "all"',
    ),
    "train meta.toml --set method.adapted=[head]": (
        'method.adapted: expected a list with a length of at least 1, each item text, got "[head]"',
    ),
    """train meta.toml --set 'method.adapted=["head/**"]'""": (
        "method.adapted: expected a pattern that matches a path, got 'head/**'. There are 'layers/0/b', ",
    ),
    """train meta.toml --set 'optim={name="freeze", mask="context"}'""": (
        "optim: masked: expected a pattern that matches a path, got 'context'. There are ",
    ),
    "train meta.toml --set optim.name=adm": ("optim.name: expected the name of a link or a schedule, got 'adm'.",),
    "train meta.toml --set data.name=digits": ('data.name: expected one of sinusoids, got "digits"',),
    "train meta.toml --set net.name=convnet": ('net.name: expected one of mlp, got "convnet"',),
    "train meta.toml --set net.init=big": ('net.init: expected one of small, lecun, uniform, got "big"',),
    "train meta.toml --set data.phase=[1,0]": ("data.phase: expected two numbers in their order, got [1.0, 0.0]",),
    "train meta.toml --set data.phase=[1]": (
        "data.phase: expected a list with a length in [2, 2], each item a number, got [1]",
    ),
    "train meta.toml --set data.grid=9": ("data.shots: expected at most the data.grid = 9 points of a task, got 10",),
    """train meta.toml --set data.grid=40 --set 'method={name="reptile"}'""": (
        "method.inner_steps times data.shots: expected at most the data.grid = 40 points of a task, got 50",
    ),
    "train meta.toml --set train.report_every=4": (
        "train.report_every: expected a divisor of the 6 steps in a call, got 4",
    ),
    "train meta.toml --set train.steps_per_call=4": (
        "train.steps_per_call: expected a divisor of train.num_steps = 6, got 4",
    ),
    "train meta.toml --set train.batch_size=4": (
        "train.batch_size: expected a key (num_steps, num_tasks, report_every, steps_per_call)",
    ),
    "train meta.toml --set num_seeds=0": ("num_seeds: expected an integer in [1, 1000], got 0",),
    "train meta.toml --set test.num_tasks=0": ("test.num_tasks: expected an integer in [1, 2147483647], got 0",),
    """train meta.toml --set 'published={source="a book", steps=[1, 2], values=[0.1]}'""": (
        "published.values: expected one for each of 2 published.steps, got 1",
    ),
    "train meta.toml --out held": ("held: expected a new or empty directory, got one that holds notes.txt",),
    # assignments
    "train base.toml --set optim.rho": ("--set optim.rho: expected key=value, such as optim.rho=0.1",),
    "train base.toml --set =1": ("--set =1: expected key=value",),
    "train base.toml --set optim..rho=1": ("--set optim..rho=1: expected key=value",),
    "train base.toml --set optim.name.x=1": ('expected optim.name to be a table, got "adam"',),
    # files
    "train syntax.toml": ("syntax.toml: expected TOML", "at line 2, column 5"),
    "train twice.toml": ("twice.toml: expected TOML", "at line 2, column 9"),
    "train prose.toml": ("prose.toml: expected TOML", "at line 1, column 6"),
    "train picture.toml": ("picture.toml: expected text in UTF-8", "position 128"),
    "train wide.toml": ("wide.toml: expected text in UTF-8",),
    "train deep.toml": ("deep.toml: expected TOML",),
    "train long.toml": ("long.toml: expected TOML",),
    "train folder.toml": ("folder.toml: expected a config file, got a directory",),
    "train bass.toml": ("bass.toml: expected a config file, got none of that name. Did you mean base.toml?",),
    "train digits_conv": ("digits_conv: expected a config file", "Did you mean digits_convnet?"),
    "train nowhere/digits_convnet.toml": (
        "nowhere/digits_convnet.toml: expected a config file",
        "Did you mean digits_convnet?",
    ),
    "summary quite/another": ("quite/another: expected a config file", "Known are digits_adam, digits_adversarial, "),
    "train ''": ("'': expected a config file, got none of that name",),
    # run directories
    "train base.toml --out held": ("held: expected a new or empty directory, got one that holds notes.txt",),
    "train base.toml --out base.toml": ("base.toml: expected a directory that can be written, got a file",),
    "train base.toml --out base.toml/run": (
        "base.toml/run: expected a directory that can be written, got 'Not a directory'",
    ),
    "train base.toml --out /proc/run": ("/proc/run: expected a directory that can be written",),
    # reinforcement learning
    "train ppo_cart_pole --set learner.num_enves=2": ("learner.num_enves: expected a key of ppo", "learner.num_envs?"),
    "train ppo_cart_pole --set env.name=cartpole": (
        "env.name: expected one of cart_pole, pendulum, recall, gymnax",
        "Did you mean cart_pole?",
    ),
    "train ppo_cart_pole --set learner.num_minibatches=3": (
        "learner.num_minibatches: expected a divisor of 512, which is num_envs * num_steps, got 3",
    ),
    "train ppo_cart_pole --set train.num_update=3": (
        "train.num_update: expected a key (num_updates, report_every)",
        "Did you mean train.num_updates?",
    ),
    "train dqn_cart_pole --set learner.discount=1.5": ("learner.discount: expected a number in [0, 1), got 1.5",),
    "summary ppo_cart_pole --set net.name=mlpp": ("net.name: expected one of mlp, ", "Did you mean mlp?"),
    # games and GANs
    "train gan_ring --set play=[adan]": ("play: expected a list with a length of at least 1, each item text",),
    """train gan_ring --set 'play=["adan"]'""": ("play[0]: expected one of ", "got 'adan'"),
    "train gan_ring --set data.name=rings": ("data.name: expected one of ring, grid", "Did you mean ring?"),
    "train gan_ring --set train.report_every=300": (
        "train.report_every: expected a divisor of train.num_steps = ",
        "got 300",
    ),
    "train gan_ring --set loss=hinges": ("loss: expected one of non_saturating, ", "Did you mean hinge?"),
    "train digits_dcgan --set generator.widht=8": ("generator.widht: expected a key", "Did you mean generator.width?"),
    "train digits_dcgan --set critic.turns=0": ("critic.turns: expected an integer in [1, 2147483647], got 0",),
    "train digits_dcgan --set generator.optim.name=adm": (
        "generator.optim.name: expected the name of a link or a schedule, got 'adm'",
    ),
    "train digits_dcgan --set loss.name=wassertein": ("loss.name: expected one of", "Did you mean wasserstein?"),
    # sweeps
    "sweep base.toml --over optim.roh=0.1,0.2": ("optim.roh: expected a key of adam", "Did you mean optim.rho?"),
    "sweep base.toml --over optin.rho=0.1": ("optin: expected a key (net, optim, ", "Did you mean optim?"),
    "sweep base.toml --over optim.rho=0.1,-0.2": ("optim.rho: expected a number of at least 0 and finite, got -0.2",),
    "sweep base.toml --over optim.rho=0.1,big": ('optim.rho: expected a number of at least 0 and finite, got "big"',),
    "sweep base.toml --over optim.name=adam,adm": ("optim.name: expected the name of a link or a schedule, got 'adm'",),
    "sweep base.toml --over optim.rho": ("--over optim.rho: expected key=values, such as optim.rho=0.01,0.1\n",),
    "sweep base.toml --over optim.rho=": ("--over optim.rho=: expected key=values",),
    "sweep base.toml --over optim.rho=0.1,,0.2": ("--over optim.rho=0.1,,0.2: expected key=values",),
    "sweep base.toml --over =1,2": ("--over =1,2: expected key=values",),
    "sweep base.toml --over optim.rho=0.1,0.1": (
        "--over optim.rho=0.1,0.1: expected different values, got 0.1 twice\n",
    ),
    "sweep base.toml --over optim.rho=0.1 --over optim.rho=0.2": (
        "--over optim.rho=0.2: expected each key once, got optim.rho again\n",
    ),
    "sweep base.toml --over seed=0,1": (
        "--over seed=0,1: expected another key than seed. --seeds 5 takes five from seed on\n",
    ),
    "sweep base.toml --over optim.rho.x=1,2": ("--over optim.rho.x=1: expected optim.rho to be a table, got 0.1\n",),
    "sweep chain.toml --over optim.links.5.rho=1,2": (
        "--over optim.links.5.rho=1: expected an index below 2 of the list optim.links, got 5\n",
    ),
    "sweep chain.toml --over optim.links.0.rho=0.1,-1": (
        "optim.links[0]: asam: expected rho of at least 0, got -1.0\n",
    ),
    "sweep base.toml --over train.batch_size=8,1199": (
        "train.batch_size: expected at most the 1198 training images, got 1199",
    ),
    "sweep base.toml --set seed=4294967295 --seeds 2": (
        "seed: expected an integer in [0, 4294967295], got 4294967296",
    ),
    "sweep base.toml --seeds 0": ("usage: renga sweep", "argument --seeds: expected an integer of at least 1, got '0'"),
    "sweep base.toml --seeds five": ("argument --seeds: expected an integer of at least 1, got 'five'",),
    "sweep base.toml --at-once -1": ("usage: renga sweep", "--at-once"),
    "sweep base.toml --out held": ("held: expected a new or empty directory, got one that holds notes.txt. Give ",),
    "sweep base.toml --out base.toml": ("base.toml: expected a directory that can be written, got a file",),
    "sweep bass.toml": ("bass.toml: expected a config file, got none of that name. Did you mean base.toml?",),
    "sweep base.toml --ovr optim.rho=1": ("usage: renga sweep", "unrecognized arguments: --ovr"),
    "sweep gan_ring --over train.num_steps=4,8": (
        "gan_ring: expected a config of a classifier, a language model, reinforcement learning or meta-learning, got ",
        "got one of a game. renga train makes its runs\n",
    ),
    "sweep digits_dcgan": ("digits_dcgan: expected a config of a classifier, ", "got one of a GAN."),
    "sweep ppo_cart_pole --over learner.clp=0.1": ("learner.clp: expected a key of ppo", "Did you mean learner.clip?"),
    "sweep meta.toml --over method.inner_rate=0.1,0": (
        "method.inner_rate: expected a number above 0 and finite, got 0",
    ),
    # runs taken up, judged, compared and exported
    "resume nowhere": ("nowhere: expected the directory of a run, got none of that name\n",),
    "resume held": ("held: expected the directory of a run, got one without config.toml\n",),
    "resume base.toml": ("base.toml: expected the directory of a run, got a file\n",),
    "resume ended": ("ended: expected a run that was stopped, got one that has ended. renga train ended/config.toml ",),
    "resume ended --checkpoint-every soon": ("usage: renga resume", "expected seconds, got 'soon'"),
    "resume": ("usage: renga resume", "RUN_DIRECTORY"),
    "evaluate nowhere": ("nowhere: expected the directory of a run, got none of that name\n",),
    "evaluate old": ("net.hiden: expected a key of mlp (name, hidden)", "Did you mean net.hidden?"),
    "evaluate game": ("game: expected a run of a classifier, of a language model or of reinforcement learning, ",),
    "compare ended": ("compare: expected two runs or more, got ended\n",),
    "compare ended ended": ("compare: expected different runs, got ended, ended\n",),
    "compare ended nowhere": ("nowhere: expected the directory of a run, got none of that name\n",),
    "compare ended begun": ("begun: expected a run with a report, got one without a row in metrics.csv\n",),
    "compare ended game/../ended --out there": (
        "--out there: expected the path of a PNG in a directory that there is\n",
    ),
    "compare": ("usage: renga compare", "RUN_DIRECTORY"),
    "export nowhere net.safetensors": ("nowhere: expected the directory of a run, got none of that name\n",),
    "export ended net.npz": ("net.npz: expected a file that ends in .safetensors, got '.npz'\n",),
    "export ended far/net.safetensors": (
        "far/net.safetensors: expected a file in a directory that there is, got 'far'\n",
    ),
    "export ended net.safetensors": ("ended/params.npz: expected the parameters of a run, got '",),
    "export ended": ("usage: renga export", "FILE"),
    "completion tcsh": ("usage: renga completion", "invalid choice: 'tcsh'"),
    # command lines
    "": ("usage: renga", "COMMAND"),
    "tarin": ("invalid choice: 'tarin' (choose from", "train"),
    "train base.toml more": ("usage: renga train", "unrecognized arguments: more"),
    "train base.toml --sett a=1": ("usage: renga train", "unrecognized arguments: --sett"),
    "train base.toml --set": ("--set: expected one argument",),
    "list --out run": ("usage: renga list", "unrecognized arguments: --out run"),
}


@pytest.fixture(scope="module")
def compilations():
    """The names of what JAX compiles from here on."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if "compile" in event and "trace" not in event:  # shapes of parameters are traced, and no more
            names.append(event)

    jax.clear_caches()  # what is compiled already is not heard
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def files(tmp_path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_compilation_would_be_heard(compilations):
    jax.jit(lambda x: x + 1).lower(1.0).compile()
    assert compilations


@pytest.mark.parametrize("line", REFUSED)
def test_it_is_refused(line, renga, files, compilations, monkeypatch):
    loops = {_run: "fit", _meta_run: "loop", _rl_run: "fit", _gan_run: "fit", _game_run: "loop", _sweep_run: "fit"}
    for module, loop in loops.items():
        monkeypatch.setattr(module, loop, lambda *args, **keywords: pytest.fail("training began"))
    compilations.clear()
    before = sorted(files.rglob("*"))
    answer = renga(*shlex.split(line))
    assert (answer.code, answer.out) == (2, "")
    for words in REFUSED[line]:
        assert words in answer.err
    *usage, last = answer.err.splitlines()
    assert last.startswith("renga")
    assert not usage or usage[0].startswith("usage: renga")
    assert compilations == []
    assert sorted(files.rglob("*")) == before


@pytest.mark.parametrize(
    ("module", "says"),
    [("sklearn.datasets", "data.name: digits needs scikit-learn"), ("renga.training.cli._plots", "matplotlib")],
)
def test_a_missing_extra_is_named(module, says, renga, files, monkeypatch):
    monkeypatch.delattr(cli, "_plots", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    answer = renga("train", "base.toml")
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert "pip install 'renga[cli]'" in answer.err
    assert not (files / "runs").exists()


@pytest.mark.parametrize("config", ["documentation_lstm", "docstrings_gru"])
def test_a_python_without_its_source_is_named(config, renga, tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))
    answer = renga("train", config)
    assert (answer.code, answer.out) == (2, "")
    name = config.split("_")[0]
    assert answer.err == (
        f"renga: data.name: {name} needs the source of Python's standard library, got none in {tmp_path / 'nowhere'}\n"
    )
    assert not (tmp_path / "runs").exists()
