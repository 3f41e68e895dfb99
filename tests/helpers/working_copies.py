"""Libraries as a maintainer brings them along: torchattacks with one change, named as ``working_copies:LONGER`` and so on."""

from dataclasses import replace

from sparring.adapters.attacks.library import To, maps
from sparring.adapters.libraries.torchattacks.bridge import LIBRARY

SAME = replace(LIBRARY, name="working-copy")
"""Nothing changed."""
LONGER = replace(
    LIBRARY,
    name="longer",
    attacks={
        **LIBRARY.attacks,
        ("fgsm", "linf"): maps("FGSM", eps=To("eps", lambda value, context: 1.1 * value / 1.2)),
    },
)
"""FGSM with another step than it is told."""
BROKEN = replace(LIBRARY, name="broken", attacks={**LIBRARY.attacks, ("fgsm", "linf"): maps("NoSuchAttack", eps="eps")})
"""FGSM crashes."""
