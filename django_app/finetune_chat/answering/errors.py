"""What can go wrong on the way to an answer; each has the code that a client of the API sees."""

from __future__ import annotations


class ChatError(Exception):
    """No answer can be given now."""

    code = "error"


class IndexUnavailable(ChatError):
    """The search does not answer. Not the reader's fault; a later try may succeed."""

    code = "search_unavailable"


class ModelUnavailable(ChatError):
    """The model server does not answer or has no model; search results can still be shown."""

    code = "model_unavailable"


class QueueFull(ChatError):
    """More readers than can wait."""

    code = "busy"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Many people are asking at the moment. Please try again shortly.")
        self.retry_after_seconds = retry_after_seconds
