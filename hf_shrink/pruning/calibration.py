"""What criteria read over calibration rows: the inputs of linear maps, and the gradients of their weights."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.inputs.calibration_rows import Batch, CalibrationRows, shared_by
from hf_shrink.inputs.encoding import IGNORED
from hf_shrink.inputs.rows import MODEL_INPUTS
from hf_shrink.inputs.tasks import inner_model, model_config
from hf_shrink.pruning.targets import as_rows

Criterion = Callable[[Tensor, Tensor], Tensor]
Gathered = dict[str, Tensor]


def input_norms(model: nn.Module, modules: Mapping[str, nn.Module], rows: CalibrationRows) -> Gathered:
    """The root of the summed squares of each input of linear maps; padding does not count.

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own.
        modules: `nn.Linear` or `Conv1D` modules of the model by any names.
        rows: All of them are read once.

    Returns:
        By the same names, fp32: shape (inputs,), and (inputs, 1) for a `Conv1D`, so that it fits the stored weight.
    """
    sums = {name: _zeros(module, 1) for name, module in modules.items()}

    def take(name: str, inputs: Tensor) -> None:
        sums[name].add_(inputs.square().sum(0))

    _watch(model, modules, rows, take)
    add_over_processes(sums)
    return {
        name: as_rows(modules[name], total.sqrt()[None]).squeeze(0)  # (1, inputs) -> (inputs,); its transpose stays
        for name, total in sums.items()
    }


def input_products(model: nn.Module, modules: Mapping[str, nn.Module], rows: CalibrationRows) -> Gathered:
    """The products of every two inputs of linear maps, summed over the positions; padding does not count.

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own.
        modules: `nn.Linear` or `Conv1D` modules of the model by any names.
        rows: All of them are read once.

    Returns:
        By the same names X^T X, half the Hessian of the output's squared error, shape (inputs, inputs), fp32.
    """
    sums = {name: _zeros(module, 2) for name, module in modules.items()}

    def take(name: str, inputs: Tensor) -> None:
        sums[name].addmm_(inputs.T, inputs)

    _watch(model, modules, rows, take)
    add_over_processes(sums)
    return sums


def run_order(model: nn.Module, modules: Mapping[str, nn.Module], rows: CalibrationRows) -> list[str]:
    """In which order a model comes to its modules.

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own.
        modules: Linear maps of the model by any names.
        rows: All of them are read once.

    Returns:
        The names, in the order of their first input.
    """
    order: dict[str, None] = {}
    _watch(model, modules, rows, lambda name, inputs: order.setdefault(name))
    return list(order)


def mean_scores(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], rows: CalibrationRows, criterion: Criterion
) -> Gathered:
    """A criterion of the gradients of each batch, averaged over the batches.

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own. No `.grad` is touched.
        parameters: By name; frozen ones serve as well, and stay frozen.
        rows: With labels.
        criterion: From a weight and its gradient to scores.

    Returns:
        fp32 scores by name; an error where the loss is not a finite number, or some parameters have no part in it.
    """
    sums = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in parameters.items()}
    reached = torch.zeros(len(parameters), device=next(iter(parameters.values())).device)
    count = torch.zeros_like(reached[:1])
    with evaluation_mode([model]), only_trainable(model, parameters), torch.enable_grad():
        for batch in rows.batches("Calibrating"):
            loss = loss_of(model, batch)
            check_reached([] if loss.requires_grad else list(parameters))
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for i, (name, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                if gradient is not None:
                    sums[name].add_(criterion(parameters[name].detach(), gradient))
                    reached[i] = 1
            count += 1
    add_over_processes({**sums, "reached": reached, "count": count})
    check_reached([name for name, seen in zip(parameters, reached.tolist(), strict=True) if not seen])
    return {name: total / count.to(total.device) for name, total in sums.items()}


@torch.no_grad()
def mean_loss(model: nn.Module, rows: CalibrationRows) -> float:
    """The model's own loss, averaged over rows, or over what is labelled in them.

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own.
        rows: With labels.

    Returns:
        Mean over labels; over rows where a row has several numbers as its label. May be infinite or NaN.

    Raises:
        ShrinkError: If nothing is labelled, or the model computes no loss.
    """
    sums = torch.zeros(2, dtype=torch.float64)
    with evaluation_mode([model]):
        for batch in rows.batches():
            weight = int(labels_by_row(batch, rows.task).sum())
            if weight:  # a batch of ignored labels alone has no mean
                sums += weight * torch.tensor([loss_of(model, batch, finite=False).item(), 1.0], dtype=torch.float64)
    device = next(model.parameters()).device
    sums = sums.to(device, torch.float32 if device.type == "mps" else None)  # which has no double precision
    add_over_processes({"sums": sums})
    total, count = sums.tolist()
    if not count:
        raise ShrinkError("`dataset` must hold at least 1 label, got only -100. Choose labelled rows.")
    return total / count


# ---------------------------------------------------------------------- passes
def labels_by_row(batch: Batch, task: str) -> Tensor:
    """How many numbers of each row the batch's mean loss is the mean of.

    Args:
        batch: With labels.
        task: Name in `TASKS`.

    Returns:
        Shape (B,), whole numbers in fp32.
    """
    labels = batch.get("labels")
    if labels is None or labels.is_floating_point():
        return torch.ones(len(next(iter(batch.values()))))
    counted = (labels[:, 1:] if task == "causal_lm" else labels) != IGNORED
    return counted.reshape(len(labels), -1).sum(1).float()


def _inputs_of(model: nn.Module, batch: Batch, *, labels: bool) -> dict[str, Any]:
    known = inspect.signature(inner_model(model).forward).parameters  # another family may know no token types
    first = next(model.parameters())
    found = {}
    for name, value in batch.items():
        if name not in known or (name == "labels" and not labels):
            continue
        half = name in MODEL_INPUTS and value.is_floating_point()  # pixels for a model in half precision
        found[name] = value.to(first.device, first.dtype if half else None)
    return found


def loss_of(model: nn.Module, batch: Batch, *, finite: bool = True) -> Tensor:
    """The model's own loss on a batch.

    Args:
        model: With a head.
        batch: With labels.
        finite: Whether a loss that is not a finite number is an error.

    Returns:
        A number.

    Raises:
        ShrinkError: If the model computes no loss, or one that is not finite.
    """
    outputs = model(**_inputs_of(model, batch, labels=True))
    loss = outputs.get("loss")
    if loss is None:
        raise ShrinkError(
            f"`dataset` must hold what a {type(inner_model(model)).__name__} computes its loss with, got "
            f"{sorted(batch)}. Add labels, or a collator that makes them."
        )
    if finite and not loss.isfinite():
        raise ShrinkError(
            f"`model` must have a finite loss on the calibration rows, got {loss.item()}. "
            "Look for an overflow in half precision, or load it in float32."
        )
    return loss


def watch_layers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    rows: CalibrationRows,
    take: Callable[[str, Tensor, Tensor], None],
) -> None:
    """Run a model over rows, and hand out what its layers read and what they return; padding does not count.

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own.
        layers: By any names; each reads hidden states first, and returns them alone or first.
        rows: All of them are read once.
        take: Called with a name, the inputs and the outputs, both of shape (positions, D) in fp32.
    """

    def see(positions: _Positions, name: str, layer: Any, read: Tensor, made: Any) -> None:
        states = (read, made[0] if isinstance(made, tuple) else made)
        take(name, *(positions.real(layer, each).float() for each in states))

    _run(model, layers, rows, see)


def _watch(
    model: nn.Module, modules: Mapping[str, nn.Module], rows: CalibrationRows, take: Callable[[str, Tensor], None]
) -> None:
    """Run the model, and hand out each input of the modules in fp32, shape (positions, inputs)."""

    def see(positions: _Positions, name: str, module: Any, read: Tensor, made: Any) -> None:
        take(name, positions.real(module, read).to(module.weight.device, torch.float32))

    _run(model, modules, rows, see)


@torch.no_grad()
def _run(model: nn.Module, modules: Mapping[str, nn.Module], rows: CalibrationRows, see: Callable[..., None]) -> None:
    """Run the model, and show what each of the modules has read and made."""
    reached = torch.zeros(len(modules), device=next(model.parameters()).device)
    with ExitStack() as stack:
        positions = stack.enter_context(_Positions.watching(model))

        def hook(index: int, name: str, module: Any, args: tuple[Any, ...], kwargs: Any, made: Any) -> None:
            reached[index] = 1
            see(positions, name, module, args[0] if args else kwargs["hidden_states"], made)

        for index, (name, module) in enumerate(modules.items()):
            handle = module.register_forward_hook(partial(hook, index, name), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(evaluation_mode([model]))
        for batch in rows.batches("Calibrating"):
            positions.inputs = _inputs_of(model, batch, labels=rows.task == "seq2seq_lm")
            model(**positions.inputs)
    add_over_processes({"reached": reached})
    check_reached([name for name, seen in zip(modules, reached.tolist(), strict=True) if not seen])


class _Positions:
    """Which positions of a batch are padding: of an encoder's inputs by its mask, of a decoder's by its own."""

    def __init__(self, encoder: nn.Module | None) -> None:
        self.inputs: dict[str, Any] = {}  # of the batch that runs
        self._in_encoder = set() if encoder is None else {id(module) for module in encoder.modules()}
        self._encoded: Tensor | None = None  # what the encoder hands to cross-attention

    @classmethod
    @contextmanager
    def watching(cls, model: nn.Module) -> Iterator["_Positions"]:
        config, inner = model_config(model), inner_model(model)
        is_pair = config is not None and config.is_encoder_decoder
        named = [module for name, module in inner.named_modules() if name.split(".")[-1] == "encoder"]
        encoder = named[0] if is_pair and named else None  # the outer one of those that hold another
        found = cls(encoder)
        handle = None if encoder is None else encoder.register_forward_hook(found._keep)
        try:
            yield found
        finally:
            if handle is not None:
                handle.remove()

    def _keep(self, encoder: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        self._encoded = outputs[0]

    def real(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Without padding, shape (positions, inputs)."""
        flat, mask = inputs.reshape(-1, inputs.shape[-1]), self._mask(module, inputs)
        # The pooler reads one position a row, convolved sound has fewer than the mask: all that there is counts.
        return flat if mask is None or mask.numel() != len(flat) else flat[mask.reshape(-1).to(flat.device)]

    def _mask(self, module: nn.Module, inputs: Tensor) -> Tensor | None:
        read = self.inputs.get("attention_mask")
        if self._in_encoder and id(module) not in self._in_encoder and not self._is_encoded(inputs):
            if self.inputs.get("decoder_attention_mask") is not None:
                read = self.inputs["decoder_attention_mask"]
            elif self.inputs.get("labels") is not None:  # the decoder's inputs are these, one position on
                return self.inputs["labels"] != IGNORED
        return None if read is None else read.bool()

    def _is_encoded(self, inputs: Tensor) -> bool:
        """Whether cross-attention makes keys and values of it; the lengths alone may be equal by chance."""
        return self._encoded is not None and inputs.data_ptr() == self._encoded.data_ptr()


@contextmanager
def only_trainable(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Let some parameters train and no others, for a while.

    Args:
        model: Whose parameters they are.
        parameters: Those that train.

    Yields:
        Nothing.
    """
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    wanted = {id(parameter) for parameter in parameters.values()}
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        yield
    finally:
        for parameter, trained in before:
            parameter.requires_grad_(trained)


def check_reached(missed: Sequence[str]) -> None:
    """Refuse rows that have not come to all targets.

    Args:
        missed: Names of the weights or modules that had no part in the outputs.

    Raises:
        ShrinkError: If there are any.
    """
    if missed:
        names = ", ".join(name.removesuffix(".weight") for name in missed[:3])
        raise ShrinkError(
            f"`calibration_dataset` must reach every target, but {len(missed)} had no part in the model's outputs "
            f"({names}): all their weights would seem worthless. Add them to `ignore`, or give other rows."
        )


def _zeros(module: Any, axes: int) -> Tensor:
    inputs = as_rows(module, module.weight).shape[1]
    return torch.zeros([inputs] * axes, dtype=torch.float32, device=module.weight.device)


def add_over_processes(tensors: Mapping[str, Tensor]) -> None:
    """Add up what the processes have gathered, in place.

    Args:
        tensors: The same names and shapes in each.
    """
    if shared_by()[1] > 1:
        for tensor in tensors.values():
            torch.distributed.all_reduce(tensor)
