"""The convolution every layer of the network is built on, and how to compile it for the CPU."""

import jax


def conv2d(x_BxHxWxC: jax.Array, kernel_HxWxIxO: jax.Array, stride: int = 1) -> jax.Array:
    """2-D convolution with Darknet's padding, (k - 1) // 2 on every side at every stride."""
    pads = [((size - 1) // 2, (size - 1) // 2) for size in kernel_HxWxIxO.shape[:2]]
    return jax.lax.conv_general_dilated(
        x_BxHxWxC,
        kernel_HxWxIxO,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def compiler_options() -> dict[str, str]:
    """Options every `jax.jit` round the network passes on: `jax.jit(f, compiler_options=...)`.

    On the CPU, jax 0.10 hands convolutions to the YNNPACK library, which runs them at half the rate
    of XLA's own (Eigen) kernels, and their gradients at less. These options leave it reductions and
    matrix products alone. Other backends keep their defaults.

    Returns:
      Names and values of XLA options for the default backend.
    """
    if jax.default_backend() != "cpu":
        return {}
    libraries = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT"
    return {"xla_cpu_experimental_ynn_fusion_type": libraries}
