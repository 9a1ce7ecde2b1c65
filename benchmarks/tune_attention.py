"""Measures how attention is best launched on this GPU, and writes it into its launch tables.

    python -m benchmarks.tune_attention [--budget-s SECONDS] [--folder FOLDER]

A launch counts if what it computes is right, and takes the place of the reasoned one if it is
faster by 3 %. What a table of the same versions has is not measured again: a run that was cut short
is gone on with. `make gpu-tune` runs this and tune_linear.
"""

import sys

from .tuning.attention import attention_subjects
from .tuning.tables import main

if __name__ == "__main__":
    sys.exit(main(__doc__, list(attention_subjects())))
