"""Small networks with several heads, for tests of gradients and methods."""

import torch
from torch import nn


def forward(method, make):
    """What ``make()`` gives, features and losses, as often as the method takes batches in a step."""
    if method.batches == 1:
        return make()
    features, losses = zip(*(make() for _ in range(method.batches)), strict=True)
    return list(features), list(losses)


def each_batch(losses):
    """The mappings of losses in what `forward` gives."""
    return [losses] if isinstance(losses, dict) else losses


class TwoHeads(nn.Module):
    """A trunk, an adapter that only the second task reads, and two heads."""

    def __init__(self, seed=0, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        self.adapter = nn.Linear(5, 5, bias=False)
        self.heads = nn.ModuleDict({"sum": nn.Linear(5, 1), "class": nn.Linear(5, 3)})
        self.to(dtype)
        draw = torch.Generator().manual_seed(seed + 1)
        self.inputs = torch.randn(12, 6, generator=draw, dtype=torch.float64).to(dtype)
        self.sums = torch.randn(12, 1, generator=draw, dtype=torch.float64).to(dtype)
        self.classes = torch.randint(3, (12,), generator=draw)

    def shared(self):
        return [*self.trunk.parameters(), *self.adapter.parameters()]

    def forward(self):
        """Features and losses."""
        z = torch.tanh(self.trunk(self.inputs))
        return z, self.losses_on(slice(None), z)

    def losses_on(self, rows, z=None):
        """Losses of some of the samples, from their features if they are there already."""
        z = torch.tanh(self.trunk(self.inputs[rows])) if z is None else z
        return {
            "sum": nn.functional.mse_loss(self.heads["sum"](z), self.sums[rows]),
            "class": nn.functional.cross_entropy(self.heads["class"](z + self.adapter(z)), self.classes[rows]),
        }

    def own_inputs(self):
        """Features and losses of two tasks with a batch each."""
        features = {"sum": self.trunk(self.inputs[:7]), "class": self.trunk(self.inputs[7:])}
        losses = {
            "sum": nn.functional.mse_loss(self.heads["sum"](features["sum"]), self.sums[:7]),
            "class": nn.functional.cross_entropy(self.heads["class"](features["class"]), self.classes[7:]),
        }
        return features, losses

    def grads(self):
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()}

    def naive_gradients(self, targets, losses):
        """[K][P] gradients by autograd.grad, zeros where a task does not reach."""
        return [
            [
                torch.zeros_like(t) if g is None else g
                for t, g in zip(
                    targets, torch.autograd.grad(loss, targets, retain_graph=True, allow_unused=True), strict=True
                )
            ]
            for loss in losses.values()
        ]
