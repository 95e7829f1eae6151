"""`python -m clients`: the commands that call a running service."""

import click
from sightline.cli import run

from clients.batch.compare import compare_models
from clients.batch.review import review
from clients.batch.score import score
from clients.commands import models, predict
from clients.doctor import doctor


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def clients() -> None:
    """Call a running Sightline service."""


for command in (predict, score, review, compare_models, models, doctor):
    clients.add_command(command)

if __name__ == "__main__":
    run(clients, "python -m clients")
