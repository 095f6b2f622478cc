"""What users just did: events and what they must hold, the log that keeps them, and what they come to."""

from ranker.feedback.acts import Acts, acts_of
from ranker.feedback.event_log import EventLog, Logged
from ranker.feedback.events import ACTS, COLUMNS, IMPRESSION, KIND_CODES, KINDS, N_KINDS, checked_events
from ranker.feedback.log import FeedbackLog
from ranker.feedback.policy import FeedbackPolicy
from ranker.feedback.schema import IN_MEMORY

__all__ = [
    "ACTS",
    "COLUMNS",
    "IMPRESSION",
    "IN_MEMORY",
    "KINDS",
    "KIND_CODES",
    "N_KINDS",
    "Acts",
    "EventLog",
    "FeedbackLog",
    "FeedbackPolicy",
    "Logged",
    "acts_of",
    "checked_events",
]
