"""A stand-in for LibMTL's git main, which cannot be installed: the parts of its interface that an adapter meets.

Written from its description. The collection of gradients has LibMTL's faults on purpose: the way through a CPU vector,
and zeros for ``mode="autograd"`` with ``rep_grad=True``.
"""

import types

import numpy as np
import torch
from torch import nn


class AbsWeighting(nn.Module):
    def init_param(self):
        pass

    def _compute_grad_dim(self):
        self.grad_index = [param.numel() for param in self.get_share_params()]
        self.grad_dim = sum(self.grad_index)

    def _grad2vec(self):
        vector, start = torch.zeros(self.grad_dim), 0
        for param in self.get_share_params():
            if param.grad is not None:
                vector[start : start + param.numel()] = param.grad.view(-1)
            start += param.numel()
        return vector

    def _compute_grad(self, losses, mode, rep_grad=False):
        if rep_grad:
            grads = [torch.zeros_like(self.rep_tasks[task]) for task in self.task_name]
            if mode == "backward":
                for k, task in enumerate(self.task_name):
                    losses[k].backward(retain_graph=k + 1 < self.task_num)
                    grads[k] = self.rep_tasks[task].grad.clone()
            return grads if isinstance(self.rep, dict) else torch.stack(grads)
        grads = torch.zeros(self.task_num, self.grad_dim)
        for k in range(self.task_num):
            if mode == "backward":
                losses[k].backward(retain_graph=k + 1 < self.task_num)
                grads[k] = self._grad2vec()
            else:
                rows = torch.autograd.grad(losses[k], list(self.get_share_params()), retain_graph=True)
                grads[k] = torch.cat([row.view(-1) for row in rows])
            self.zero_grad_share_params()
        return grads

    def _reset_grad(self, new_grads):
        start = 0
        for param in self.get_share_params():
            if param.grad is not None:
                param.grad.data = new_grads[start : start + param.numel()].view_as(param).clone()
            start += param.numel()


class EW(AbsWeighting):
    def backward(self, losses, **kwargs):
        losses.sum().backward()
        return np.ones(self.task_num)


class PCGrad(AbsWeighting):
    def backward(self, losses, **kwargs):
        raise AssertionError("LibMTL's own PCGrad was called")


class Exotic(AbsWeighting):
    """A weighting of a user's own: the gradients' plain mean."""

    mode = "backward"

    def backward(self, losses, **kwargs):
        if self.rep_grad:
            grads = self._compute_grad(losses, self.mode, rep_grad=True)
            self.rep.backward(grads.mean(0))
        else:
            self._compute_grad_dim()
            self._reset_grad(self._compute_grad(losses, self.mode).mean(0))


class HPS(nn.Module):
    """Hard parameter sharing, with what ``AbsArchitecture`` offers."""

    def __init__(self, task_name, encoder_class, decoders, rep_grad, multi_input, device, **kwargs):
        super().__init__()
        self.task_name, self.task_num = task_name, len(task_name)
        self.encoder, self.decoders = encoder_class(), decoders
        self.rep_grad, self.multi_input, self.device = rep_grad, multi_input, device
        if rep_grad:
            self.rep, self.rep_tasks = {}, {}

    def forward(self, inputs, task_name=None):
        shared = self.encoder(inputs)
        return {
            task: self.decoders[task](self._prepare_rep(shared, task, not self.multi_input))
            for task in self.task_name
            if task_name in (None, task)
        }

    def get_share_params(self):
        return self.encoder.parameters()

    def zero_grad_share_params(self):
        self.encoder.zero_grad(set_to_none=False)

    def _prepare_rep(self, rep, task, same_rep=None):
        if not self.rep_grad:
            return rep
        if same_rep:
            self.rep = rep
        else:
            self.rep[task] = rep
        self.rep_tasks[task] = rep.detach().clone().requires_grad_()
        return self.rep_tasks[task]


class Trainer:
    """LibMTL's loop: weightings by name, three batches for two of them, a second look for one."""

    def __init__(self, tasks, weighting, encoder_class, decoders, rep_grad, multi_input, weight_args=None, lr=0.05):
        weighting_class = vars(package.weighting)[weighting]

        class MTLmodel(HPS, weighting_class):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.init_param()

        self.tasks, self.weighting, self.multi_input = tasks, weighting, multi_input
        self.weight_args = weight_args or {}
        self.model = MTLmodel(list(tasks), encoder_class, decoders, rep_grad, multi_input, torch.device("cpu"))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    def losses(self, batch):
        found = torch.zeros(len(self.tasks), dtype=torch.get_default_dtype())
        for k, (task, loss) in enumerate(self.tasks.items()):
            inputs, targets = batch[task] if self.multi_input else (batch["inputs"], batch[task])
            prediction = self.model(inputs, task)[task] if self.multi_input else None
            if prediction is None:
                self.predictions = self.model(inputs) if k == 0 else self.predictions
                prediction = self.predictions[task]
            found[k] = loss(prediction, targets)
        return found

    def step(self, batches, step=True):
        losses = torch.stack([self.losses(batch) for batch in batches]).squeeze(0)
        self.optimizer.zero_grad(set_to_none=False)
        weights = self.model.backward(losses, **self.weight_args)
        if step:
            self.optimizer.step()
        if self.weighting == "FAMO":
            with torch.no_grad():
                self.model.update_w(self.losses(batches[0]).detach())
        return losses.detach(), weights

    def train(self, batches, epochs):
        count = 3 if self.weighting in ("MoDo", "SDMGrad") else 1
        history = []
        for self.model.epoch in range(epochs):
            starts = range(0, len(batches) - count + 1, count)
            history += [self.step(batches[start : start + count]) for start in starts]
        return history


def modules(names=()):
    """What ``sys.modules`` holds with LibMTL installed.

    Args:
        names: weightings that it has besides EW, PCGrad and Exotic.
    """
    weighting = types.ModuleType("LibMTL.weighting")
    weighting.AbsWeighting, weighting.EW, weighting.PCGrad, weighting.Exotic = AbsWeighting, EW, PCGrad, Exotic
    for name in names:
        if name not in vars(weighting):
            setattr(weighting, name, type(name, (AbsWeighting,), {}))
    weighting.__all__ = [name for name in vars(weighting) if not name.startswith("_")]
    package.weighting = weighting
    return {"LibMTL": package, "LibMTL.weighting": weighting}


package = types.ModuleType("LibMTL")
