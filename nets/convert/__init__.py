"""Weights from elsewhere and back: torch, Flax, Haiku, and safetensors files.

Every layer here has a map to the names and layouts of each library that has it: transposed kernels, the order of
gates, the offset of the forget gate, running statistics. The map of a network is that of its layers, at their paths:

>>> net = nets.serial(nets.linear(3), nets.batch_norm())
>>> x = jnp.ones((2, 4))
>>> theirs = to_torch(net, net.init(jax.random.key(0), x), x)
>>> {name: array.shape for name, array in theirs.items()}
{'linear.weight': (3, 4), 'linear.bias': (3,), 'batch_norm.weight': (3,), 'batch_norm.bias': (3,),
 'batch_norm.running_mean': (3,), 'batch_norm.running_var': (3,), 'batch_norm.num_batches_tracked': ()}
>>> params, state = from_torch(net, theirs, x)

Where the other side has other names for the parts of a network, `names` says which: patterns of our paths, or a
function. Each block of a `repeat` has its number as a part of the path:

>>> names = {"linear": "fc", "batch_norm": "bn"}
>>> sorted(to_torch(net, (params, state), x, names=names))[0]
'bn.bias'

Published weights of GPT-2 are read by `from_gpt2`, those of torchvision's ResNets by
`from_torch(net, weights, image, names=torchvision_resnet)`.

Flax and Haiku have channels last, as here. Torch has them first, so an image that is made flat has its values in
another order there, and the rows of the layer that reads it are reordered. Where that layer is not to be seen, in a
body of one's own with a `flatten`, the functions for torch fail until `flattened` says which it is. A body that
reshapes by itself is beyond what they see: give `flattened` for it too.

>>> @nets.define
... def net(x, *, conv=nets.conv(2, 3), flat=nets.flatten(), head=nets.linear(5)):
...     return head(flat(jax.nn.relu(conv(x))))
>>> x = jnp.ones((4, 4, 3))
>>> theirs = to_torch(net, net.init(jax.random.key(0), x), x, flattened={"head": (4, 4, 2)})

Nothing is dropped and nothing is guessed: `from_*` fails on every missing, extra or mis-shaped array, and on numbers of
another kind, with a list.
"""

from ._entry import ConvertError as ConvertError
from ._files import load_safetensors as load_safetensors
from ._files import save_safetensors as save_safetensors
from ._flax import from_flax as from_flax
from ._flax import to_flax as to_flax
from ._haiku import from_haiku as from_haiku
from ._haiku import to_haiku as to_haiku
from ._known import from_gpt2 as from_gpt2
from ._known import to_gpt2 as to_gpt2
from ._known import torchvision_resnet as torchvision_resnet
from ._torch import from_torch as from_torch
from ._torch import to_torch as to_torch
