"""What training and prediction compute with on the machine they run on: the one place that decides.

The network itself is plain XLA (`mtnet_jax.network`), which every transformation and every platform
takes. `mtnet train` and everything that predicts with JAX ask here for operations of the same
values that are faster or need less memory, and for the compiler's options.
"""

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp

from mtnet_jax.cpu import onednn
from mtnet_jax.cpu.convolution import onednn_conv2d
from mtnet_jax.cpu.winograd import transform_kernel, winograd_conv
from mtnet_jax.network import MultitaskNet
from mtnet_jax.network.convolution import conv2d
from mtnet_jax.network.folding import PLAIN, FoldedConvolution
from mtnet_jax.network.normalisation import lean_batch_norm_leaky

# On CPUs (docs/performance.md): with fewer input channels Winograd's transforms cost more than the
# products that they save; oneDNN, where it is, is the faster one up to more channels.
LEAST_WINOGRAD_CHANNELS, LEAST_WINOGRAD_CHANNELS_BESIDE_ONEDNN = 32, 128
# oneDNN brings a kernel into its own order at every call. Where kernels are large beside the maps,
# as in the wide layers of the paper's net, XLA's convolution is faster.
MOST_WEIGHTS_OF_A_TAP = 64 * 128


def fastest(model: MultitaskNet) -> MultitaskNet:
    """The same network, of the same variables, with the operations that train best here."""
    return model.clone(conv=fast_conv2d, norm=lean_batch_norm_leaky)


def folded_convolution(dtype: jnp.dtype) -> FoldedConvolution:
    """The convolution of the folded network (`mtnet_jax.network.folding`) for this compute type."""
    if jax.default_backend() != "cpu" or dtype != jnp.float32:
        return PLAIN  # other backends choose such algorithms themselves
    return FoldedConvolution(_prepare_kernel, _apply_kernel)


def training_options() -> dict[str, str]:
    """Options of the compiler for a training step: `jax.jit(f, compiler_options=...)`.

    On the CPU, jax 0.10 hands convolutions to the YNNPACK library, which runs them at half the rate
    of XLA's own (Eigen) kernels, and their gradients at less. These options leave it reductions and
    matrix products alone. The compiler pass that takes optimisation barriers out before operations
    are fused is turned off: the gradient of the convolution and rematerialisation count on them.
    Other backends keep their defaults.
    """
    if jax.default_backend() != "cpu":
        return {}
    libraries = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT"
    return {
        "xla_cpu_experimental_ynn_fusion_type": libraries,
        "xla_disable_hlo_passes": "cse_barrier_expander",
    }


def steps_in_flight() -> int:
    """How many training steps are started before one is waited for.

    An accelerator does one while the next waits for it, so that it never waits; it holds the
    batches of both, and the next one. On the CPU each has temporary memory of its own from the
    moment it is started.
    """
    return 1 if jax.default_backend() == "cpu" else 2


def prediction_options() -> dict[str, str]:
    """Options of the compiler for the folded network.

    XLA's own kernels are faster than YNNPACK's for every product of it; reductions may stay with
    that library.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def compiling() -> AbstractContextManager:
    """Round the compilation of programs with these operations; see `onednn.compiling`."""
    return onednn.compiling()


def type_warning(dtype: jnp.dtype) -> str:
    """What to say of a training that computes in this type here; "" where nothing."""
    if jax.default_backend() != "cpu" or dtype == jnp.float32 or onednn.knows(dtype):
        return ""
    return (
        f"WARNING: this processor is slow in {jnp.dtype(dtype).name} (docs/performance.md): a new "
        "run is faster with --config.model.dtype=float32."
    )


def fast_conv2d(x_BxHxWxC: jax.Array, kernel_HxWxIxO: jax.Array, stride: int = 1) -> jax.Array:
    """`network.convolution.conv2d`, by oneDNN where it is there and knows their type."""
    usable = onednn.usable(x_BxHxWxC, kernel_HxWxIxO)
    return (onednn_conv2d if usable else conv2d)(x_BxHxWxC, kernel_HxWxIxO, stride)


def _prepare_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    """Most 3x3 kernels of stride 1 are transformed for Winograd's convolution: 16 / 9 of a size."""
    least = LEAST_WINOGRAD_CHANNELS_BESIDE_ONEDNN if onednn.available() else LEAST_WINOGRAD_CHANNELS
    suits = kernel.shape[0] == 3 and stride == 1 and kernel.shape[2] >= least
    return transform_kernel(kernel) if suits else kernel


def _apply_kernel(x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    if kernel.shape[0] == 4:
        return winograd_conv(x_BxHxWxC, kernel)
    if kernel.shape[2] * kernel.shape[3] <= MOST_WEIGHTS_OF_A_TAP:
        return fast_conv2d(x_BxHxWxC, kernel, stride)
    return conv2d(x_BxHxWxC, kernel, stride)
