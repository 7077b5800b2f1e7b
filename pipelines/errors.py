"""Errors that a user can act on.

Only the exception type lives here; the messages live where the input is checked. Every command turns an
`InputError` or an `OSError` into one message and exit status 2; anything else is an internal fault, status 1.
"""


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a folder, a YAML key, an argument.

    The message says what happened, what was expected and how to fix it, and names the file or key.
    """
