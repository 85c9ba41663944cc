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
stacked parameters), `ensemble` (a vmap over them):

>>> deep = serial(linear(8), repeat(block(8), 12), head=linear(10))
>>> jax.eval_shape(deep.init, jax.random.key(0), x)["repeat"]["into"]["w"].shape
(12, 8, 32)

**State and keys** are arguments and results. A network that carries statistics, such as one with a
`batch_norm` in it, is a `StatefulNet`: `init` gives `(params, state)`, and `apply(params, state, x)` gives
`(outputs, state)`. Dropout needs `key=` when `train=True`, and says so when it gets none.

A parameter's path, `repeat/into/w`, is its name in errors, in `summary`, and in profiles. Its initial value
depends on the root key and this path alone.
"""

from ._combine import parallel as parallel
from ._combine import residual as residual
from ._combine import serial as serial
from ._conv import avg_pool as avg_pool
from ._conv import conv as conv
from ._conv import flatten as flatten
from ._conv import max_pool as max_pool
from ._define import define as define
from ._define import param as param
from ._dropout import dropout as dropout
from ._errors import NetError as NetError
from ._errors import ShapeError as ShapeError
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
from ._linear import embed as embed
from ._linear import linear as linear
from ._linear import mlp as mlp
from ._net import Net as Net
from ._net import StatefulNet as StatefulNet
from ._net import layer as layer
from ._norm import batch_norm as batch_norm
from ._norm import layer_norm as layer_norm
from ._stack import ensemble as ensemble
from ._stack import repeat as repeat
from ._summary import Summary as Summary
from ._summary import SummaryRow as SummaryRow
from ._summary import summary as summary
