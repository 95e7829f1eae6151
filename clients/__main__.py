"""`python -m clients`: the `sightline` command, as `python -m sightline`."""

from sightline.cli import cli, run

if __name__ == "__main__":
    run(cli, "python -m clients")
