"""The attack libraries, a folder each: a table of attacks, a bridge, and the reconciliations of the ledger."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"ledger": ["Entry", "entries", "habits", "ledger_name"]})
