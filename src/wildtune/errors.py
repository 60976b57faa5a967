"""One family of errors: what was expected, what was found, what to do next.

Each class carries the exit status that the command line ends with:
2 the command or the recipe is wrong, 3 the photos or the weights are.
"""


class WildtuneError(Exception):
    """Base of every error a user can cause and mend; its text is shown as it is, without a traceback."""

    exit_status = 2


class CommandError(WildtuneError):
    """A command, an option or a run folder that cannot be used as asked (exit status 2)."""


class RecipeError(WildtuneError):
    """A recipe that is not valid; the message lists every problem at once (exit status 2)."""


class TrainingError(WildtuneError):
    """Training that cannot go on because its loss is no longer a number (exit status 2)."""


class PhotosError(WildtuneError):
    """Photos, labels or their container that cannot be used (exit status 3)."""

    exit_status = 3


class WeightsError(WildtuneError):
    """Pretrained weights that cannot be found, read or matched to the backbone (exit status 3)."""

    exit_status = 3
