"""JAX's own initializers, recorded: `normal(0.1) == normal(0.1)`."""

from jax.nn import initializers

from .._call import recording

constant = recording(initializers.constant, home=__name__)
delta_orthogonal = recording(initializers.delta_orthogonal, home=__name__)
glorot_normal = recording(initializers.glorot_normal, home=__name__)
glorot_uniform = recording(initializers.glorot_uniform, home=__name__)
he_normal = recording(initializers.he_normal, home=__name__)
he_uniform = recording(initializers.he_uniform, home=__name__)
lecun_normal = recording(initializers.lecun_normal, home=__name__)
lecun_uniform = recording(initializers.lecun_uniform, home=__name__)
normal = recording(initializers.normal, home=__name__)
orthogonal = recording(initializers.orthogonal, home=__name__)
truncated_normal = recording(initializers.truncated_normal, home=__name__)
uniform = recording(initializers.uniform, home=__name__)
variance_scaling = recording(initializers.variance_scaling, home=__name__)
ones = initializers.ones
zeros = initializers.zeros
