"""A torch module as a classifier: range, normalization, layout, evaluation mode and device are settled here, once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, NotSupported, first_line
from sparring.adapters.frameworks.coexistence import guard
from sparring.adapters.frameworks.preprocessing import (
    LEAST_PROBABILITY,
    ChannelOrder,
    Layout,
    Output,
    Preprocessing,
    check_input_shape,
    check_output,
    preprocessing,
)
from sparring.adapters.protocol import Counter, Images, Logits, Pull, check_cotangent, check_images

guard()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

NO_GRADIENT = "needs gradients; the torch module gives none with respect to its input"


class TorchClassifier:
    """A ``torch.nn.Module`` as a ``Differentiable`` and ``TorchNative`` classifier.

    - ``input_shape`` is (channels, height, width).
    - ``classes``: when it is None, one image is run to count the scores.
    - ``mean`` and ``std`` are in units of ``input_range`` and in the module's channel order, see ``preprocessing``.
    - ``output='probabilities'``: an ``nn.Softmax`` that ends an ``nn.Sequential`` is left out. Of any other module the
      logarithm of the probabilities is taken, clipped at 1e-30. That is the same classifier, without a gradient where a
      probability underflows.

    The module is never written to. One on another device, or in another precision than float32, is copied. After every
    call training flags and ``requires_grad`` are as before. Nothing clamps the images.

    Raises ``InputError`` for options that make no sense, for a device that is absent, and for a module that does not
    turn an image into one row of class scores.
    """

    framework = "torch"

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: tuple[int, int, int],
        classes: int | None = None,
        input_range: tuple[float, float] = (0.0, 1.0),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channel_order: ChannelOrder = "rgb",
        layout: Layout = "channels-first",
        output: Output = "logits",
        device: str = "auto",
    ) -> None:
        self.input_shape = check_input_shape(input_shape)
        self.device = choose_device(device)
        check_output(output)
        before = preprocessing(
            self.input_shape, input_range=input_range, mean=mean, std=std, channel_order=channel_order, layout=layout
        )
        module = _on(module, self.device)
        with evaluating(module):  # what we add stays in evaluation mode, and the module goes back to its own
            parts: list[nn.Module] = [] if before.identity else [_Before(before).to(self.device)]
            if output == "probabilities":
                rest = _without_softmax(module)
                parts += [module, _Log()] if rest is None else [rest]
            else:
                parts += [module]
            self.network = _chain(parts)
            scores, writes = self._probe()
            if writes:
                self.network = _chain([_Copy(), *parts])
        if classes not in (None, scores):
            raise InputError(f"classes is {classes}, but the model gives {scores} scores per image")
        self.classes = scores

    def logits(self, x: Images) -> Logits:
        """Class scores (N, classes), float32, of images (N, C, H, W). Raises ``InputError`` as the protocol says."""
        check_images(x, self.input_shape)
        if not len(x):
            return np.zeros((0, self.classes), np.float32)
        with self._working(), torch.no_grad():
            return _array(self.network(_tensor(x, self.device)))

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        """Gradient (N, C, H, W), float32, of ``(logits(x) * cotangent).sum()``; no parameter's gradient is computed.

        Raises ``InputError`` as the protocol says, and ``NotSupported`` for a module that cuts the gradient off.
        """
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        if not len(x):
            return np.zeros_like(x)
        with self._working(), torch.enable_grad():
            leaf = _tensor(x, self.device).requires_grad_()
            scores = self.network(leaf)
            if not scores.requires_grad:
                raise NotSupported(NO_GRADIENT)
            return _array(torch.autograd.grad(scores, leaf, _tensor(cotangent, self.device))[0])

    def linearize(self, x: Images) -> tuple[Logits, Pull]:
        """``logits(x)``, and a function from a cotangent to ``vjp(x, cotangent)``, after one pass forwards.

        Raises as both do. As long as the function exists, it keeps what the backward pass needs.
        """
        check_images(x, self.input_shape)
        if not len(x):
            return self.logits(x), lambda cotangent: self.vjp(x, cotangent)
        with self._working(), torch.enable_grad():
            leaf = _tensor(x, self.device).requires_grad_()
            scores = self.network(leaf)

        def pull(cotangent: Logits) -> Images:
            check_cotangent(cotangent, len(x), self.classes)
            if not scores.requires_grad:
                raise NotSupported(NO_GRADIENT)
            with exactly(self.device):
                return _array(torch.autograd.grad(scores, leaf, _tensor(cotangent, self.device), retain_graph=True)[0])

        return _array(scores), pull

    @contextmanager
    def torch_module(self, counter: Counter) -> Iterator[nn.Module]:
        """The native door: a module on ``self.device``, [0, 1] images -> logits, in evaluation mode and frozen.

        Inside the context every image that passes forwards or backwards is added to ``counter``. Afterwards training
        flags and ``requires_grad`` are as they were, whatever the caller did to them.
        """
        with self._working(), _frozen(self.network):
            yield _Counting(self.network, counter, self.device).eval()

    @contextmanager
    def _working(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.network))
            stack.enter_context(exactly(self.device))
            yield

    def _probe(self) -> tuple[int, bool]:
        """The number of classes, and whether the module writes to its input."""
        image = torch.zeros((1, *self.input_shape), device=self.device)
        try:
            with self._working(), torch.no_grad():
                scores = self.network(image)
        except (RuntimeError, TypeError, ValueError, IndexError) as exc:
            raise InputError(f"the model does not take images of shape {self.input_shape}: {first_line(exc)}") from exc
        if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != 1:
            result = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(
                f"the model must give one row of class scores per image, (1, classes) for one, not {result}"
            )
        return scores.shape[1], image._version > 0


def choose_device(device: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or another of torch's names. ``InputError`` if absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        choice = torch.device(device)
    except RuntimeError as exc:
        raise InputError(f"unknown device {device!r}; valid: auto, cpu, cuda") from exc
    if choice.type == "cuda" and (choice.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return choice


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Compute on the device in float32, always in the same way: by itself cuDNN takes TF32, three digits less."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


class _Before(nn.Module):
    """A ``Preprocessing`` in torch."""

    scale: Tensor
    shift: Tensor

    def __init__(self, numbers: Preprocessing) -> None:
        super().__init__()
        self.reverse, self.channels_last = numbers.reverse, numbers.channels_last
        self.affine = numbers.affine is not None
        for name, values in zip(("scale", "shift"), numbers.affine or (), strict=False):
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, x: Tensor) -> Tensor:
        if self.reverse:
            x = x.flip(1)
        if self.affine:
            x = x * self.scale + self.shift
        return x.permute(0, 2, 3, 1).contiguous() if self.channels_last else x


class _Copy(nn.Module):
    """Stands in front of a module that writes to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class _Log(nn.Module):
    """Probabilities -> logits. The softmax of their logarithms gives the same probabilities."""

    def forward(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp(min=LEAST_PROBABILITY).log()


class _Counting(nn.Module):
    """The module that a library gets."""

    def __init__(self, net: nn.Module, counter: Counter, device: torch.device) -> None:
        super().__init__()
        self.net, self._counter = net, counter
        if next(net.parameters(), None) is None:  # torchattacks asks the first parameter for the device
            self.dummy = nn.Parameter(torch.zeros(0, device=device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        self._counter.forwards += len(x)
        scores: Tensor = self.net(x)
        if scores.requires_grad:
            scores.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return scores

    def _count_backward(self, gradient: Tensor) -> None:
        self._counter.backwards += len(gradient)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module and all its parts are in evaluation mode; afterwards every flag is as it was."""
    flags = [(part, part.training) for part in module.modules()]
    if any(flag for _, flag in flags):
        module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            if part.training != flag:
                part.training = flag


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _on(module: nn.Module, device: torch.device) -> nn.Module:
    """The module in float32 on the device: itself, or a copy where it has to move, for the original is the user's."""
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a torch.nn.Module, not {type(module).__name__}")
    there = torch.zeros(0, device=device).device
    tensors = [*module.parameters(), *module.buffers()]
    if all(t.device == there and (t.dtype == torch.float32 or not t.is_floating_point()) for t in tensors):
        return module
    return copy.deepcopy(module).to(device, torch.float32)


def _without_softmax(module: nn.Module) -> nn.Module | None:
    """The Sequential without the softmax that ends it, with the same other parts; None if no softmax ends it."""
    if not isinstance(module, nn.Sequential) or not len(module):
        return None
    *rest, last = module.children()
    if isinstance(last, nn.Softmax):
        return nn.Sequential(*rest)
    inner = _without_softmax(last)
    return None if inner is None else nn.Sequential(*rest, inner)


def _chain(parts: list[nn.Module]) -> nn.Module:
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts).eval()


def _tensor(x: Images, device: torch.device) -> Tensor:
    """A tensor with memory of its own: a module that works in place must not reach the caller's array."""
    return torch.tensor(np.ascontiguousarray(x), device=device)


def _array(x: Tensor) -> npt.NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).contiguous().numpy()
