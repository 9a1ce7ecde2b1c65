"""Measures how products with quantized weights and experts are best launched on this GPU.

    python -m benchmarks.tune_linear [--budget-s SECONDS] [--folder FOLDER]

Like tune_attention: right first, faster than the reasoned launch by 3 %, written shape by shape
into the GPU's launch tables, and gone on with where a run was cut short.
"""

import sys

from .tuning.products import product_subjects
from .tuning.tables import main

if __name__ == "__main__":
    sys.exit(main(__doc__, list(product_subjects())))
