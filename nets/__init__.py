"""Networks as values: two pure functions, `init` and `apply`, and nothing else.

A network holds no arrays. `init` makes its parameters, a nested dict of arrays, from a key and the shapes of
its inputs; `apply` runs it on parameters that you hand in:

>>> net = mlp(16, 16, 1)
>>> x = jnp.ones((8, 3))
>>> params = net.init(jax.random.key(0), x)
>>> net.apply(params, x).shape
(8, 1)

So every transform of JAX works on it as on any function, `jax.vmap(net.apply, (None, 0))` included.
Trailing axes carry meaning, leading axes are batch, any number of them: a network takes one example or many.

**A network of any shape is a plain function whose keyword defaults are its children.** The body reads as the
mathematics, and may use any transform of JAX:

>>> @define
... def classifier(x, *, hidden=linear(32), drop=dropout(0.1), head=linear(10)):
...     return head(drop(jax.nn.relu(hidden(x))))
>>> params = classifier.init(jax.random.key(0), x)
>>> sorted(params)
['head', 'hidden']
>>> logits = classifier.apply(params, x, key=jax.random.key(1), train=True)

With hyper-parameters it is a function that returns such a body, marked `layer` like every constructor here:

>>> @layer
... def block(features, rate=0.1):
...     @define
...     def body(x, *, norm=layer_norm(), into=linear(4 * features), out=linear(features), drop=dropout(rate)):
...         return x + drop(out(jax.nn.gelu(into(norm(x)))))
...     return body
>>> block(8)
block(8)
>>> block(8) == block(8)
True

**Combinators** take networks and return networks: `serial`, `parallel`, `residual`, `repeat` (a scan over
stacked parameters), `ensemble` (a vmap over them), `remat`, `cast`, `frozen`, `lora`, `weight_norm`,
`spectral_norm`:

>>> deep = serial(linear(8), repeat(block(8), 12), head=linear(10))
>>> jax.eval_shape(deep.init, jax.random.key(0), x)["repeat"]["into"]["w"].shape
(12, 8, 32)

**Recurrent networks** are cells, `lstm_cell`, `gru_cell` and others, under `rnn` or `bidirectional`:

>>> classify = define(lambda x, *, cells=rnn(stack_cells(gru_cell(16), gru_cell(16))), head=linear(2): head(cells(x)))
>>> series = jnp.ones((5, 20, 3))
>>> classify.apply(classify.init(jax.random.key(0), series), series).shape
(5, 20, 2)

**Whole networks** are these parts and no more: `mlp`, `convnet`, `resnet`, `unet`, `vit`, `vae`, `lstm_lm`,
`dcgan_generator`, `dcgan_discriminator`, `transformer`, which `generate` draws text from.

**State and keys** are arguments and results. A network that carries statistics, such as one with a
`batch_norm` in it, is a `StatefulNet`: `init` gives `(params, state)`, and `apply(params, state, x)` gives
`(outputs, state)`. Dropout needs `key=` when `train=True`, and says so when it gets none.

A parameter's path, `repeat/into/w`, is its name in errors, in `summary`, and in profiles. Its initial value
depends on the root key and this path alone. Tools go by path as well: `summary` and `draw` show a network, `tap` and
`capture` what flows in it; `partition_params`, `mask_params`, `rename_params`, `resize_params` and `compare` work on
parameters; `convert` reads those of torch, Flax and Haiku, and writes them.
"""

from . import convert as convert
from ._adaptive import adaptive_avg_pool as adaptive_avg_pool
from ._adaptive import adaptive_max_pool as adaptive_max_pool
from ._adaptive import global_avg_pool as global_avg_pool
from ._adaptive import global_max_pool as global_max_pool
from ._attention import attention as attention
from ._average import ema as ema
from ._batch_norm import batch_norm as batch_norm
from ._cache import KVCache as KVCache
from ._cell import Cell as Cell
from ._cell import cell as cell
from ._cells import conv_lstm_cell as conv_lstm_cell
from ._cells import mgu_cell as mgu_cell
from ._cells import simple_cell as simple_cell
from ._combine import parallel as parallel
from ._combine import residual as residual
from ._combine import serial as serial
from ._compare import Comparison as Comparison
from ._compare import Difference as Difference
from ._compare import compare as compare
from ._conv import conv as conv
from ._conv import depthwise_conv as depthwise_conv
from ._conv import separable_conv as separable_conv
from ._conv_local import conv_local as conv_local
from ._conv_transpose import conv_transpose as conv_transpose
from ._convnet import convnet as convnet
from ._dcgan import dcgan_discriminator as dcgan_discriminator
from ._dcgan import dcgan_generator as dcgan_generator
from ._define import define as define
from ._define import param as param
from ._draw import draw as draw
from ._dropout import alpha_dropout as alpha_dropout
from ._dropout import drop_path as drop_path
from ._dropout import dropout as dropout
from ._einsum import einsum as einsum
from ._einsum import linear_general as linear_general
from ._errors import NetError as NetError
from ._errors import ShapeError as ShapeError
from ._excite import squeeze_excite as squeeze_excite
from ._experts import Routing as Routing
from ._experts import mixture_of_experts as mixture_of_experts
from ._feed_forward import feed_forward as feed_forward
from ._feed_forward import swiglu as swiglu
from ._generate import generate as generate
from ._group_norm import group_norm as group_norm
from ._group_norm import instance_norm as instance_norm
from ._gru import gru_cell as gru_cell
from ._initializers import constant as constant
from ._initializers import delta_orthogonal as delta_orthogonal
from ._initializers import glorot_normal as glorot_normal
from ._initializers import glorot_uniform as glorot_uniform
from ._initializers import he_normal as he_normal
from ._initializers import he_uniform as he_uniform
from ._initializers import lecun_normal as lecun_normal
from ._initializers import lecun_uniform as lecun_uniform
from ._initializers import normal as normal
from ._initializers import ones as ones
from ._initializers import orthogonal as orthogonal
from ._initializers import truncated_normal as truncated_normal
from ._initializers import uniform as uniform
from ._initializers import variance_scaling as variance_scaling
from ._initializers import zeros as zeros
from ._linear import attend as attend
from ._linear import bilinear as bilinear
from ._linear import embed as embed
from ._linear import linear as linear
from ._linear import mlp as mlp
from ._linear_recurrence import lru_cell as lru_cell
from ._linear_recurrence import min_gru_cell as min_gru_cell
from ._lora import lora as lora
from ._lora import merge_lora as merge_lora
from ._lstm import lstm_cell as lstm_cell
from ._lstm_lm import lstm_lm as lstm_lm
from ._net import Net as Net
from ._net import StatefulNet as StatefulNet
from ._net import layer as layer
from ._norm import layer_norm as layer_norm
from ._norm import rms_norm as rms_norm
from ._partition import mask_params as mask_params
from ._partition import merge_params as merge_params
from ._partition import partition_params as partition_params
from ._paths import flatten_params as flatten_params
from ._paths import unflatten_params as unflatten_params
from ._pool import avg_pool as avg_pool
from ._pool import max_pool as max_pool
from ._pool import min_pool as min_pool
from ._positions import alibi as alibi
from ._positions import learned_positions as learned_positions
from ._positions import rotary as rotary
from ._positions import sinusoidal_positions as sinusoidal_positions
from ._quantise import Quantisation as Quantisation
from ._quantise import vector_quantise as vector_quantise
from ._quantise import vector_quantise_ema as vector_quantise_ema
from ._resize import flatten as flatten
from ._resize import upsample as upsample
from ._resnet import resnet as resnet
from ._rnn import bidirectional as bidirectional
from ._rnn import rnn as rnn
from ._stack import ensemble as ensemble
from ._stack import repeat as repeat
from ._stack_cells import stack_cells as stack_cells
from ._stacked import stack as stack
from ._stacked import unstack as unstack
from ._summary import Summary as Summary
from ._summary import SummaryRow as SummaryRow
from ._summary import summary as summary
from ._surgery import params_at as params_at
from ._surgery import rename_params as rename_params
from ._surgery import resize_params as resize_params
from ._surgery import slice_params as slice_params
from ._tap import capture as capture
from ._tap import tap as tap
from ._transformer import transformer as transformer
from ._transformer import transformer_block as transformer_block
from ._unet import unet as unet
from ._vae import VAEOutput as VAEOutput
from ._vae import gaussian_kl as gaussian_kl
from ._vae import vae as vae
from ._vit import vit as vit
from ._weight_norm import spectral_norm as spectral_norm
from ._weight_norm import weight_norm as weight_norm
from ._wrap import cast as cast
from ._wrap import frozen as frozen
from ._wrap import remat as remat
