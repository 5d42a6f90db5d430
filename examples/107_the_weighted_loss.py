"""The weighted loss by itself: a sum of token losses, from hidden states to gradients, without logits in memory."""

import torch

from balanced_thinking import weighted_linear_cross_entropy

torch.manual_seed(0)
tokens, width, vocabulary = 64, 32, 1000
hidden_TD = torch.randn(tokens, width, requires_grad=True)
head_VD = torch.randn(vocabulary, width, requires_grad=True)
labels_T = torch.randint(vocabulary, (tokens,))
labels_T[:40] = -100  # the prompt: it costs nothing

# SCALe with one example: 20 think tokens share the weight 0.9, 4 answer tokens the weight 0.1.
weights_T = torch.zeros(tokens)
weights_T[40:60] = 0.9 / 20
weights_T[60:] = 0.1 / 4

out = weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T)
out.loss.backward()
print(f"loss {out.loss.item():.4f} nats")
print(f"0.9 x {out.nll_T[40:60].mean():.4f} + 0.1 x {out.nll_T[60:].mean():.4f}")

# The specification is 20 lines of plain torch; the fast versions have its signature and its values.
fast = hidden_TD.grad.clone()
hidden_TD.grad = head_VD.grad = None
plain = weighted_linear_cross_entropy(hidden_TD, head_VD, labels_T, weights_T, impl="reference")
plain.loss.backward()
print(f"largest difference of the gradients: {(fast - hidden_TD.grad).abs().max():.1e}")
print(f"gradient of the prompt: {fast[:40].abs().sum():.1f}")
