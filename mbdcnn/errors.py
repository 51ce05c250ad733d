"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake that its user can mend.

    The message is one sentence that names the file or field and the mend. The command line prints it without a
    traceback and exits with code 2.
    """
