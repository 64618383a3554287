"""`python -m mtnet_jax.cli`."""

import sys

from mtnet_jax.cli import main

sys.exit(main())
