"""Two runs of the benchmark side by side: python -m benchmarks.compare BEFORE.json AFTER.json"""

import json
import sys
from pathlib import Path
from typing import Any


def compared(before: dict[str, Any], after: dict[str, Any]) -> str:
    """A line for each measurement that both runs have, and AFTER over BEFORE.

    A change smaller than the rounds of either run lay apart is marked as noise.
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
    print(compared(*(json.loads(Path(name).read_text()) for name in sys.argv[1:3])))
