"""What can go wrong between the operator and the cluster.

OperatorError
    ClusterUnavailable     no answer, 5xx, 429: nobody's fault, a later try helps
    StaleObject            the object changed since it was read: read again at once
        AlreadyThere       it was made before
    NotFound               the object is not there
    ClusterRefused         the API server will not take what we send (403, 422): a person must act
        FieldConflict      another field manager owns a field that we set
        CrdTooOld          our CustomResourceDefinition lacks a field of the status
    InvalidRun             a FineTuneRun that this operator cannot read: a person must act
    LeadershipLost         another replica acts now: end the process
    InvalidSettings        the operator's own environment is wrong: end the process
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of the tree above."""


class ClusterUnavailable(OperatorError):
    """The API server gave no usable answer. A later try may succeed."""


class StaleObject(OperatorError):
    """Somebody wrote the object after it was read. Read again and decide again."""


class AlreadyThere(StaleObject):
    """An object of this name exists, so that none was made."""


class NotFound(OperatorError):
    """The object does not exist."""


class ClusterRefused(OperatorError):
    """The API server understood and refuses. The same request will be refused again until a person acts."""


class FieldConflict(ClusterRefused):
    """Another field manager owns a field that we want to set."""

    def __init__(self, message: str, owner: str, field: str) -> None:
        super().__init__(message)
        self.owner = owner
        self.field = field


class CrdTooOld(ClusterRefused):
    """The CustomResourceDefinition in the cluster is older than this operator."""


class InvalidRun(OperatorError):
    """A FineTuneRun that passed the API server but that this operator cannot read."""


class LeadershipLost(OperatorError):
    """The Lease is held by another replica, or could not be renewed in time."""


class InvalidSettings(OperatorError):
    """An environment variable of the operator is missing or malformed."""
