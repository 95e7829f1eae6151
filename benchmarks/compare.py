"""Compare two runs of the benchmark: `python -m benchmarks.compare BEFORE.json AFTER.json`."""

import argparse
import json
from pathlib import Path
from typing import Any


def compared(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Format a line for each measurement that both runs have, with the ratio of AFTER to BEFORE.

    A change smaller than the spread of either run's rounds is marked as noise.
    """
    then = {_key(row): row for row in before["rows"]}
    lines = [f"{'service':28}{'case':28}{'clients':>8}{'before':>11}{'after':>11}{'ratio':>8}  p99 before, after"]
    for row in after["rows"]:
        old = then.get(_key(row))
        if old is None or not old["per_second"]:
            continue
        ratio = row["per_second"] / old["per_second"]
        noise = " (noise)" if abs(ratio - 1) < max(row["spread"], old["spread"]) else ""
        lines.append(
            f"{row['service']:28}{row['case']:28}{row['clients']:>8}{old['per_second']:>11.1f}{row['per_second']:>11.1f}"
            f"{ratio:>8.2f}  {old['p99']:.1f}, {row['p99']:.1f}{noise}"
        )
    lines += [
        f"{name}: {before['facts'][name]}, {value}" for name, value in after["facts"].items() if name in before["facts"]
    ]
    return "\n".join(lines)


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["service"], row["case"], row["clients"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    print(compared(json.loads(options.before.read_text()), json.loads(options.after.read_text())))
