"""What a suite says of data, of defenses and of a training, validated. Of models: ``model_spec.py``."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Spec(BaseModel):
    """Base of every part of a suite file: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataSpec(Spec):
    """A data set and the sample of it that is attacked."""

    name: str | None = Field(None, description="a data set by name; `sparring list datasets` lists them")
    path: str | None = Field(None, description="an .npz file (x_train, y_train, x_test, y_test, or x, y) or a folder")
    split: Literal["train", "test"] = "test"
    samples: int | None = Field(None, ge=1, description="how many images, drawn by `seed`; all when absent")
    stratified: bool = Field(False, description="draw the same share of every class")
    seed: int = Field(0, ge=0, description="draws the sample")
    resize: int | None = Field(None, ge=1, description="shorter side after resizing, pixels (image folders)")
    crop: int | None = Field(None, ge=1, description="side of the centre crop, pixels (image folders); 224 when absent")
    size: int | None = Field(None, ge=1, description="both sides of every image after resizing (bilinear), pixels")
    channels: Literal[1, 3] | None = Field(None, description="1: grey, 3: color; as they are when absent")
    test_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="pool the training and the test part and split them anew, by a fixed permutation: so much is test",
    )
    fit: int | None = Field(
        None, ge=1, description="so many further images, none of the sample, for attacks that are trained first"
    )
    include: tuple[str, ...] = Field(
        (), description="classes whose first image is always in the sample, in front; `samples` counts them"
    )
    transforms: str | None = Field(
        None,
        description="a torchvision weights enum: pictures are resized and cropped as these weights want it "
        "(`resize`, `crop` and `interpolation` beside it go before)",
    )
    interpolation: Literal["bilinear", "bicubic"] | None = Field(
        None, description="how pictures are resized; bilinear when absent"
    )
    mapping: str | None = Field(
        None,
        description="from the folders of pictures to ImageNet's classes: a YAML file, or one that ships "
        "(fruits-vegetables, imagenet-produce)",
    )
    per_group: int | None = Field(
        None, ge=1, description="so many images of every group of the `mapping`, drawn by `seed`"
    )

    @model_validator(mode="after")
    def _one_source(self) -> DataSpec:
        if (self.name is None) == (self.path is None):
            raise ValueError("give either `name` or `path`")
        if self.per_group and not self.mapping:
            raise ValueError("`per_group` needs a `mapping`, which has the groups")
        for key in ("samples", "stratified", "include", "test_share"):
            if self.per_group and getattr(self, key):
                raise ValueError(f"give either `per_group` or `{key}`")
        return self

    @property
    def label(self) -> str:
        """The data set's name, or that of its file or folder."""
        return self.name or PurePath(str(self.path)).stem


class DefenseSpec(Spec):
    """One defense by name; every other key is a parameter of it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    defense: str = Field(
        description="`sparring list defenses` lists them; also art:ClassName and package.module:object"
    )

    @property
    def given(self) -> dict[str, Any]:
        """The parameters as written."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The name, with the parameters that were given: ``gaussian-blur(sigma=1.0)``."""
        said = ", ".join(f"{key}={value}" for key, value in self.given.items())
        return f"{self.defense}({said})" if said else self.defense


class ChainSpec(Spec):
    """Defenses of every model of a suite, in order."""

    name: str | None = Field(None, description="what they are called in tables; their own names when absent")
    chain: tuple[DefenseSpec, ...] = Field((), description="a defense by name, or a mapping with its parameters, each")
    models: tuple[str, ...] | None = Field(None, min_length=1, description="only of these models, instead of all")
    data: tuple[str, ...] | None = Field(None, min_length=1, description="only on these data sets, instead of all")

    @field_validator("chain", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return as_chain(value)


class SearchSpec(Spec):
    """A search over hyperparameters, before the training: the best by cross-validated accuracy is trained."""

    how: Literal["grid", "random"] = "grid"
    over: dict[str, tuple[Any, ...]] = Field(
        min_length=1, description="keys of `train` or parameters of the architecture, each with the values to try"
    )
    trials: int = Field(10, ge=1, description="how many points are drawn (random)")
    folds: int = Field(3, ge=2, description="of the stratified cross-validation")
    samples: int | None = Field(None, ge=1, description="on so many training images, drawn by `seed`; all when absent")
    seed: int = Field(0, ge=0, description="draws the points, the images and the folds")


class TrainSpec(Spec):
    """How a named architecture is trained on the training part of the suite's data."""

    epochs: Annotated[int, Field(ge=1)] = 5
    seed: int = Field(0, ge=0, description="initial weights, order of batches, dropout and augmentation")
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0, description="learning rate (sgd has momentum .9)")
    batch_size: int = Field(32, ge=1)
    augment: Literal["none", "shift", "flip-crop", "rotate-shift-zoom"] = Field(
        "none",
        description="shift: up to 10 % each way; flip-crop: horizontal flip and a crop after padding by an eighth; "
        "rotate-shift-zoom: up to 10 degrees, 10 % and 20 %",
    )
    samples: int | None = Field(None, ge=1, description="train on so many images, drawn by `seed`; all when absent")
    l2: float = Field(0.0, ge=0, description="this times the sum of the squared kernels is added to the loss")
    validation: float = Field(0.0, ge=0, lt=1, description="share of the training images that is held out, by `seed`")
    keep: Literal["last", "best"] = Field(
        "last", description="the weights of the last epoch, or of the best validation loss"
    )
    schedule: Literal["none", "plateau"] = Field(
        "none",
        description="plateau: a tenth of the learning rate each time that the validation loss has not fallen for more "
        "than three epochs",
    )
    start: str | None = Field(
        None,
        description="a torchvision weights enum: the training of a torchvision architecture begins with these weights, "
        "in all but the last layer",
    )

    @model_validator(mode="after")
    def _judged_by_what(self) -> TrainSpec:
        for key, value in (("keep", "best"), ("schedule", "plateau")):
            if getattr(self, key) == value and not self.validation:
                raise ValueError(f"`{key}: {value}` needs a `validation` share")
        return self


def as_chain(value: Any) -> Any:
    """One defense, by name or as a mapping, or a list of such, as a list of mappings; anything else as it is."""
    if value is None or value == "none":
        return []
    if isinstance(value, str | dict | DefenseSpec):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    return [{"defense": item} if isinstance(item, str) else item for item in value]


def facts(spec: BaseModel) -> dict[str, Any]:
    """The spec as plain JSON values, without what has its default: what a reader of it may take as not said."""
    return spec.model_dump(mode="json", exclude_defaults=True)
