"""The errors of batch scoring: each ends the command, and the same command goes on where it stopped."""

from sightline.errors import SightlineError


class OutputFailed(SightlineError):
    """The results or the journal cannot be written."""

    code = "output_failed"


class NotAJournal(SightlineError):
    """The file at the journal's place is something else, or of another version of Sightline."""

    code, exit_status = "not_a_journal", 2


class ScoringStopped(SightlineError):
    """Scoring stopped before its end."""

    code = "scoring_stopped"
