"""Mixed precision on the meta device, for which torch has no autocast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_LOW = {F.linear, F.conv1d, F.conv2d, F.conv3d}
_LOW |= {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.mm, torch.addmm, torch.baddbmm}
_LOW |= {torch.conv1d, torch.conv2d, torch.conv3d}
_FULL = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.layer_norm}


class LikeAutocast(TorchFunctionMode):
    """Products in `dtype`, norms and softmax in float32, as torch.autocast has it; no change with None.

    A copy of a trained weight is kept for the complete forward; that of a frozen one until its product's backward. Call
    `forget_copies` after the forward.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype
        self._copies: dict[int, Tensor] = {}
        self._keeps = True

    def forget_copies(self) -> None:
        self._copies.clear()
        self._keeps = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.dtype is None or "out" in kwargs:  # autocast leaves the latter as they are
            return func(*args, **kwargs)
        if func in _LOW:
            args, kwargs = tree_map_only(Tensor, self._lower, (args, kwargs))
        elif func in _FULL:
            args, kwargs = tree_map_only(Tensor, self._raise, (args, kwargs))
        return func(*args, **kwargs)

    def _lower(self, tensor: Tensor) -> Tensor:
        assert self.dtype is not None
        if not tensor.is_floating_point() or tensor.dtype == self.dtype:
            return tensor
        if not (self._keeps and tensor.is_leaf and tensor.requires_grad):
            return tensor.to(self.dtype)
        if id(tensor) not in self._copies:
            self._copies[id(tensor)] = tensor.to(self.dtype)
        return self._copies[id(tensor)]

    def _raise(self, tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor
