"""Fetch what the paper's default tables need, and two more sets; skip what is complete.

A set that cannot be fetched is named and the others go on; the exit code is 0 if everything that
the paper's default tables need is there.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
import traceback
from pathlib import Path

NEEDED = ("weights", "prototypes", "emoji", "tuxpaint", "cdda", "openclipart", "easyvqa")
EXTRA = ("emoji2d", "statements")


def fetched(
    name: str,  # of a fetch script
) -> bool:
    "Run a fetch script in this process; whether it ended well."
    try:
        runpy.run_path(str(Path(__file__).with_name(f"fetch_{name}.py")), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return not end.code
    except Exception:  # a fault of one script is shown in full and does not stop the others
        traceback.print_exc()
        return False
    return True


def main() -> None:
    "Run the scripts one after the other."
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    start, names = time.time(), NEEDED + EXTRA
    failed = [name for name in names if not fetched(name)]
    print(
        f"{len(names) - len(failed)} of {len(names)} fetched in {time.time() - start:.0f} s"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    sys.exit(any(name in NEEDED for name in failed))


if __name__ == "__main__":
    main()
