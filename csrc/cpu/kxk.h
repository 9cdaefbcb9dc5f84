// Runs a K×K solver (common/kxk/solve.h) on every problem of a batch.
#pragma once

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/kxk/solve.h"
#include "task_grads.h"

namespace mtl {

// gram [..., K, K] -> weights [..., K], certificate [...] and status [...].
template <class Solver>
std::tuple<Tensor, Tensor, Tensor> solve_batch(const char* op, const Solver& solver, Tensor gram) {
  check_gram(op, gram, /*batched=*/true);
  gram = torch::stable::contiguous(gram);
  auto [weights, certificate, status] = solver_results(gram);
  const int num_tasks = static_cast<int>(gram.sizes().back());
  const double* problems = gram.const_data_ptr<double>();
  double* solutions = weights.mutable_data_ptr<double>();
  double* certificates = certificate.mutable_data_ptr<double>();
  int32_t* outcomes = status.mutable_data_ptr<int32_t>();
  torch::stable::parallel_for(0, certificate.numel(), 16, [&](int64_t begin, int64_t end) {
    std::vector<double> workspace(Solver::workspace(num_tasks));
    for (int64_t i = begin; i < end; ++i) {
      solve_problem(solver, OneLane{}, num_tasks, problems + i * num_tasks * num_tasks, solutions + i * num_tasks,
                    certificates + i, outcomes + i, workspace.data());
    }
  });
  return {weights, certificate, status};
}

}  // namespace mtl
