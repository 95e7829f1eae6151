"""The README's request and its answer, as they stand there."""

import json
import re
import shlex
import subprocess
import sys

from tests.e2e.conftest import ROOT, Service

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readmes_request_gets_the_readmes_answer(service: Service) -> None:
    curl = next(block for block in blocks("sh") if block.startswith("curl "))
    command = curl.replace("http://127.0.0.1:8000", service.url).replace("@models/", f"@{service.models}/")
    done = subprocess.run([*shlex.split(command), "-s"], capture_output=True, text=True, check=True)
    answer, promised = json.loads(done.stdout), json.loads(blocks("json")[0])
    assert list(answer) == list(promised)
    row, shown = answer["predictions"][0], promised["predictions"][0]
    assert [field for field in row if field != "raw_score"] == list(shown)
    assert (answer["model"], answer["version"], row["name"], row["label"]) == ("digits", 1, "000.png", shown["label"])
    assert [field for field in row["top"][0] if field != "raw_score"] == list(shown["top"][0])
    assert abs(row["score"] - shown["score"]) < 0.2


def test_the_readmes_doctor_agrees(service: Service) -> None:
    program, *words = shlex.split(next(block for block in blocks("sh") if "doctor" in block))
    where = ["--url", service.url, "--grpc", service.grpc, "--models", str(service.models)]
    assert program == ".venv/bin/sightline"
    subprocess.run([sys.executable, "-m", "sightline", *words, *where], check=True, cwd=ROOT)
