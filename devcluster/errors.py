"""What can go wrong while the development cluster is built, started or ended."""


class DevclusterError(Exception):
    """Something on this machine stands in the way. The message names the place, the fact and the remedy."""


class CommandFailed(DevclusterError):
    """A program that was called ended with an error. The message carries the last lines it printed."""


class PartDied(DevclusterError):
    """A part that was started ended before it answered. The message carries the last lines of its log."""
