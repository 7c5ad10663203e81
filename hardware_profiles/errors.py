"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """A mistake in what the user gave: a file, row, value or name.

    Its text is the single line to print; it names what is wrong and says what would be right.
    """
