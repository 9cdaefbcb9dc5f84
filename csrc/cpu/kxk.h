// Runs a K×K solver (common/kxk/solve.h) on every problem of a batch.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/kxk/solve.h"
#include "gram_arguments.h"

namespace mtl {

// gram [..., K, K] -> weights [..., K], certificate [...] and status [...]; or, with rows [..., M, K] of which M
// problems each share a matrix, -> weights [..., M, K], certificate [..., M] and status [..., M].
template <class Solver>
std::tuple<Tensor, Tensor, Tensor> solve_batch(const char* op, const Solver& solver, Tensor gram,
                                               std::optional<Tensor> rows = std::nullopt) {
  check_gram(op, gram, /*batched=*/true);
  if (rows) check_lower(op, *rows, gram);
  gram = torch::stable::contiguous(gram);
  if (rows) rows = torch::stable::contiguous(*rows);
  auto [weights, certificate, status] = solver_results(gram, rows);
  const int num_tasks = static_cast<int>(gram.sizes().back());
  const int64_t rows_per_gram = rows ? rows->size(-2) : 1;
  const double* problems = gram.const_data_ptr<double>();
  const double* starts = rows ? rows->const_data_ptr<double>() : nullptr;
  double* solutions = weights.template mutable_data_ptr<double>();
  double* certificates = certificate.template mutable_data_ptr<double>();
  int32_t* outcomes = status.template mutable_data_ptr<int32_t>();
  torch::stable::parallel_for(0, certificate.numel(), 16, [&](int64_t begin, int64_t end) {
    std::vector<double> workspace(Solver::workspace(num_tasks));
    for (int64_t i = begin; i < end; ++i) {
      solve_problem(solver, OneLane{}, num_tasks, problems + i / rows_per_gram * num_tasks * num_tasks,
                    starts == nullptr ? nullptr : starts + i * num_tasks, solutions + i * num_tasks, certificates + i,
                    outcomes + i, workspace.data());
    }
  });
  return {weights, certificate, status};
}

}  // namespace mtl
