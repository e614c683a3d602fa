"""What is raised when the user, not the program, has to change something."""


class BadInput(ValueError):
    """Something that was handed in cannot be used; the message says what, where, and the remedy."""


class Doubt(UserWarning):
    """Input that was read but deserves a second look; the ledger and the manifest keep it."""
