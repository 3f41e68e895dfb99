"""What a run says: tables, figures, and one page."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"finished": ["FinishedRun", "read"], "study": ["Study"]})
