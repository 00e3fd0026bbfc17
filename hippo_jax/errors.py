"""The one exception that speaks to the user."""


class HippoError(ValueError):
    """Something the user can mend: a wrong file, argument, checkpoint or placement.

    Its text is one line that says what is wrong and what to do about it. The command line prints
    that line and exits with status 2.
    """
