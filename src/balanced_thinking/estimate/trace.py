"""One micro-batch through the real model on torch's meta device: what it computes, and what it holds at its peak.

Nothing is computed: weights and activations have shapes and no numbers. So the classes of transformers, PEFT's adapter,
gradient checkpointing and our own head say themselves what they multiply and what they keep for the backward.
Small tensors of integers (token ids, sizes of pictures) stay real, because shapes depend on them.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
_PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward}
_FORMULAS = {aten.addmm_: aten.addmm, aten.baddbmm_: aten.baddbmm}
_PRODUCTS |= _FORMULAS.keys()
_FACTORS = {aten.mm: 2, aten.bmm: 2, aten.addmm: 3, aten.baddbmm: 3}  # tensors of the product
_FREE = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.detach}
_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
}


class Operation(NamedTuple):
    """One call, by what decides its cost. `kind` is product, attention or other."""

    kind: str
    name: str
    shapes: tuple[tuple[int, ...], ...]  # of the tensors that go in
    dtype: torch.dtype
    causal: bool
    flops: int
    bytes_moved: int  # read and written
    transposed: tuple[bool, ...] = ()  # of each of `shapes`: whether its last two dimensions are stored the other way


@dataclass
class Trace:
    """What a micro-batch computes, and the bytes that it holds at its peak by part."""

    operations: Counter[Operation] = field(default_factory=Counter)
    peak_bytes: int = 0
    held_at_peak: dict[str, int] = field(default_factory=dict)

    def flops(self) -> int:
        return sum(count * operation.flops for operation, count in self.operations.items())


class Tracer(TorchDispatchMode):
    """Counts operations and live bytes within its context.

    Storages that exist before it are not counted: weights are the caller's. `part` names the part of the model that
    new storages belong to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trace, self.part = Trace(), "activations"
        self.windows: set[tuple[int, ...]] = set()  # shapes of queries that stand for a call for each of their rows
        self._known: dict[int, str] = {}  # storages, by their address
        self._live: Counter[str] = Counter()

    @contextmanager
    def of_part(self, part: str) -> Iterator[None]:
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def ignore(self, tensors: Any) -> None:
        """Storages of weights, which are counted elsewhere."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()._cdata] = "weights"

    def assign(self, tensor: Tensor, part: str) -> None:
        """Say what a storage is, such as a gradient, after it was made."""
        address = tensor.untyped_storage()._cdata
        before = self._known.get(address)
        if before in (None, "weights", part):
            return
        size = tensor.untyped_storage().nbytes()
        self._live[before] -= size
        self._live[part] += size
        self._known[address] = part

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if (assumed := _assume_value(func, args)) is not None:
            return assumed
        if func is aten._to_copy.default and (args[0].is_meta or _carries_values(args[0])):
            kwargs.pop("device", None)  # what has values keeps them, because shapes depend on it; the rest has none
        flat = list(_tensors_of((args, kwargs)))
        on_meta = any(one.is_meta for one in flat)
        if on_meta and not all(one.is_meta for one in flat):
            args, kwargs = _to_meta(func, args, kwargs)
        found = func(*args, **kwargs)
        made = [one for one in _tensors_of(found) if one.is_meta]
        if on_meta or made:
            self._record(func, args, kwargs, flat, found, made)
        return found

    def _record(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], found: Any, made: list[Tensor]) -> None:
        inputs = {one.untyped_storage()._cdata for one in given}
        new = [one for one in made if one.untyped_storage()._cdata not in self._known]
        for one in new:
            self._hold(one)
        writes = func._schema.is_mutable or any(one.untyped_storage()._cdata not in inputs for one in made)
        packet = func._overloadpacket
        if not writes or packet in _FREE:  # a view, or memory that nobody has written to
            return
        kind = "product" if packet in _PRODUCTS else "attention" if packet in _ATTENTION else "other"
        flops = 0
        if kind == "product":
            flops = _product_flops(_FORMULAS.get(packet, packet), args, kwargs, found)
        causal = False
        if kind == "attention":
            causal = bool(_argument(func, args, kwargs, "is_causal"))
            flops = _attention_flops(packet, args, causal)
        moved = sum(_bytes_of(one) for one in (*given, *made))
        shapes = tuple(tuple(one.shape) for one in given if one.dim())
        dtype = next((one.dtype for one in given if one.is_floating_point()), torch.int64)
        turned = tuple(_is_transposed(one) for one in given if one.dim()) if kind == "product" else ()
        operation = Operation(kind, packet.__name__, shapes, dtype, causal, flops, moved, turned)
        query = args["backward" in packet.__name__] if kind == "attention" else None
        if query is not None and tuple(query.shape) in self.windows:
            self._record_windows(operation, len(query))
        else:
            self.trace.operations[operation] += 1

    def _record_windows(self, operation: Operation, count: int) -> None:
        """As many calls of one window each; forward, each output is also copied by an operation of its own."""
        shapes = tuple((1, *shape[1:]) if len(shape) == 4 else shape for shape in operation.shapes)
        flops, moved = operation.flops // count, operation.bytes_moved // count
        self.trace.operations[operation._replace(shapes=shapes, flops=flops, bytes_moved=moved)] += count
        if "backward" not in operation.name:  # the bytes of the copies are recorded where all are copied at once
            self.trace.operations[Operation("other", "clone", shapes[:1], operation.dtype, False, 0, 0)] += count - 1

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        self._known[address] = self.part
        self._live[self.part] += size
        weakref.finalize(storage, self._release, address, size)
        self._note_peak()

    def _release(self, address: int, size: int) -> None:
        self._live[self._known.pop(address)] -= size

    def _note_peak(self) -> None:
        total = sum(self._live.values())
        if total > self.trace.peak_bytes:
            self.trace.peak_bytes, self.trace.held_at_peak = total, dict(self._live)


def _tensors_of(tree: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for one in tree:
            yield from _tensors_of(one)
    elif isinstance(tree, dict):
        for one in tree.values():
            yield from _tensors_of(one)


def _product_flops(packet: Any, args: Any, kwargs: Mapping[str, Any], found: Any) -> int:
    if packet in _FACTORS:  # other arguments, such as the dtype of the sum, are not for the formula
        return int(flop_registry[packet](*args[: _FACTORS[packet]], out_val=found))
    return int(flop_registry[packet](*args, **kwargs, out_val=found))


def _is_transposed(tensor: Tensor) -> bool:
    return tensor.dim() > 1 and tensor.stride(-1) > tensor.stride(-2)


def _bytes_of(tensor: Tensor) -> int:
    """Bytes that are read or written: those of an expanded tensor once."""
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else 1
    return size


def _argument(func: Any, args: Any, kwargs: Mapping[str, Any], name: str) -> Any:
    names = [one.name for one in func._schema.arguments]
    place = names.index(name)
    return args[place] if place < len(args) else kwargs.get(name, func._schema.arguments[place].default_value)


def _attention_flops(packet: Any, args: Any, causal: bool) -> int:
    """Two products forward, five backward (the scores are computed again); half of each is masked where causal."""
    backward = "backward" in packet.__name__
    query, key = (args[1], args[2]) if backward else (args[0], args[1])
    rows, heads, queries, width = query.shape
    products = 5 if backward else 2
    return products * 2 * rows * heads * queries * key.shape[2] * width // (2 if causal else 1)


def _assume_value(func: Any, args: Any) -> Any:
    """What a number on the meta device is taken for: yes. Models ask whether nothing is padded or masked."""
    if func is aten._local_scalar_dense.default and args[0].is_meta:
        return True if args[0].dtype == torch.bool else 1
    return None


def _carries_values(tensor: Tensor) -> bool:
    return not tensor.is_meta and not tensor.is_floating_point()


def _to_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """The arguments with real tensors as shapes. A real mask selects as many elements as it does."""
    if func is aten.index.Tensor or func is aten.index_put_.default or func is aten.index_put.default:
        indices: list[Any] = []
        for one in args[1]:
            if one is not None and one.dtype in (torch.bool, torch.uint8):
                chosen = one.nonzero(as_tuple=True) if not one.is_meta else _all_places(one)
                indices += [place.to("meta") for place in chosen]
            else:
                indices.append(one)
        args = (args[0], indices, *args[2:])
    return tree_map_only(Tensor, _without_numbers, (args, kwargs))


def _without_numbers(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _all_places(mask: Tensor) -> list[Tensor]:
    """Of a mask without values every element counts."""
    return [torch.empty(mask.numel(), dtype=torch.int64, device="meta") for _ in mask.shape]
