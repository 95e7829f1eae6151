"""A Python process whose standard library gevent has patched."""

import subprocess
import sys

from tests.gateway.gateway_process import ROOT

PATCHED = "from gevent import monkey; monkey.patch_all()\n"


def run_patched(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", PATCHED + code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
