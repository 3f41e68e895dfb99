"""Which kind a model is."""

from __future__ import annotations

from sparring.models import model_spec as specs
from sparring.models.prepared.kinds import converted, ensemble, exported, onnx_file, trained, user_object, weights
from sparring.models.prepared.kinds.kind import Kind

KINDS: dict[type[specs.Model], Kind] = {
    specs.TrainedModel: trained.KIND,
    specs.WeightsModel: weights.KIND,
    specs.ObjectModel: user_object.KIND,
    specs.OnnxModel: onnx_file.KIND,
    specs.ExportModel: exported.KIND,
    specs.ConvertModel: converted.KIND,
    specs.EnsembleModel: ensemble.KIND,
}


def kind_of(spec: specs.ModelSpec) -> Kind:
    """The kind of a model."""
    return KINDS[type(spec)]
