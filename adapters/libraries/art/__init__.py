"""The Adversarial Robustness Toolbox: its attacks, its estimators, its defenses and its trainers."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"defenses": ["RawDefense"], "trainers": ["RawTrainer"]})
