"""sparring's own attacks: JSMA, patches, pixel swap, AutoAttack and worst-of."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__, {"autoattack": ["opened_stages"], "patch": ["PLACING", "batches", "ranged"]}
)
