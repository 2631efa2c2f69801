"""The example of the README, run as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alignmerge_nb.core import data_home

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
)


@pytest.mark.skipif(not BLOCKS, reason="README.md has no python block")
@pytest.mark.skipif(
    not (data_home() / "weights").is_dir(),
    reason="the weights are not fetched: python data_scripts/fetch_weights.py",
)
def test_example_runs(tmp_path: Path) -> None:
    "All python blocks in one script, in an empty folder, with the fetched data."
    env = {**os.environ, "ALIGNMERGE_DATA": str(data_home().resolve())}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(BLOCKS)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert not any(
        path.is_file() and path.stat().st_size > 100_000_000 for path in tmp_path.rglob("*")
    )
