"""A prepared model as a value: what it is, and all that another process needs to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sparring.models.model_spec import ModelSpec, model_spec
from sparring.models.spec import DefenseSpec, facts

BY_DEFENSE = "(by its defense)"
"""Ends the reasons that a wrapper gives for what the classifier lacks."""


@dataclass(frozen=True)
class ModelRef:
    """A prepared model: what it is, and all that ``open_model`` needs to open it in another process."""

    name: str
    digest: str
    """sha256 over the weights and all else that decides what the classifier computes: no name, no path"""
    framework: str
    """``torch``, ``keras-tensorflow``, ``keras-torch``, ``keras-jax``, ``onnx`` or ``ensemble``"""
    architecture: str
    """its name, ``object:package.module:name``, the name of the file, or how an ensemble combines"""
    input_shape: tuple[int, int, int]
    classes: int
    spec: ModelSpec
    artifact: str | None
    """absolute path of the weights or of the ONNX file; None for an object"""
    options: Mapping[str, Any]
    """keyword arguments of ``wrap``"""
    base: str
    """folder of the suite: an object is imported from there"""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """what the classifier has not, of ``gradients`` and ``logits`` (where it only decides), and why"""
    members: tuple[ModelRef, ...] = ()
    """of an ensemble"""
    wrappers: tuple[DefenseSpec, ...] = ()
    """the defenses that stand in front of and behind it when it is used, in order"""
    undefended_digest: str = ""
    """the digest without the wrappers; empty where there are none"""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """what is known of how it was made: the history of the training, a search, seconds; no part of the digest"""

    @property
    def undefended(self) -> ModelRef:
        """The model without its wrappers."""
        if not self.wrappers:
            return self
        bare = self.spec.model_copy(update={"defenses": ()})
        own = {what: why for what, why in self.lacks.items() if not why.endswith(BY_DEFENSE)}
        return replace(self, digest=self.undefended_digest, wrappers=(), undefended_digest="", spec=bare, lacks=own)

    @property
    def seen_as(self) -> str:
        """The framework that an attack library sees: of a defended model, ``defended``."""
        return "defended" if self.wrappers else self.framework

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The framework, or those of the members."""
        each = [name for member in self.members for name in member.frameworks] or [self.framework]
        return tuple(dict.fromkeys(each))

    @property
    def host(self) -> str:
        """The framework in whose process the model is opened: of an ensemble the first member's that is on Keras."""
        return next((name for name in self.frameworks if name.startswith("keras-")), self.frameworks[0])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which ``from_json`` makes the same ref."""
        plain = {"spec": facts(self.spec), "input_shape": list(self.input_shape), "lacks": dict(self.lacks)}
        plain |= {"wrappers": [spec.model_dump() for spec in self.wrappers], "facts": dict(self.facts)}
        return {**self.__dict__, **plain, "members": [member.to_json() for member in self.members]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelRef:
        """The ref that ``to_json`` wrote."""
        shape, spec = tuple(value["input_shape"]), model_spec(value["spec"])
        members = tuple(map(cls.from_json, value.get("members", ())))
        wrappers = tuple(map(DefenseSpec.model_validate, value.get("wrappers", ())))
        values = {"input_shape": shape, "spec": spec, "members": members, "wrappers": wrappers}
        return cls(**{**value, **values})
