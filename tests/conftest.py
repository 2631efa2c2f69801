"""What every test shares: a torchvision that can be imported, and no network but loopback."""

from __future__ import annotations

import os

os.environ.setdefault(
    "HF_HUB_OFFLINE", "1"
)  # a test that would reach for a hub fails at once instead of waiting
os.environ.setdefault("MPLBACKEND", "Agg")

# Importing the package repairs a CUDA torchvision beside a CPU torch: before timm and transformers.
import alignmerge_nb  # noqa: E402, F401  (after the environment is set; for its effect)
