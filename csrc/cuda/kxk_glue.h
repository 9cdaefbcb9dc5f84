// The glue that the K×K solvers share: checks, allocation and launch.
#pragma once

#include <optional>
#include <tuple>

#include "cuda/device_scope.h"
#include "cuda/kxk.h"
#include "gram_arguments.h"

namespace mtl {

// gram [..., K, K] -> weights [..., K], certificate [...] and status [...]; or, with rows [..., M, K] of which M
// problems each share a matrix, -> weights [..., M, K], certificate [..., M] and status [..., M]. `launch` takes a
// KxkBatch and a stream.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor> solve_batch(const char* op, Tensor gram, const Launch& launch,
                                               std::optional<Tensor> rows = std::nullopt) {
  const DeviceScope scope(gram);
  check_gram(op, gram, /*batched=*/true);
  if (rows) check_lower(op, *rows, gram);
  const int64_t num_tasks = gram.sizes().back();
  MTL_CHECK(num_tasks <= kMaxSolverTasks, op, ": gram has K = ", num_tasks, " tasks, the CUDA kernel takes at most ",
            kMaxSolverTasks, ": move gram to the CPU");
  gram = torch::stable::contiguous(gram);
  if (rows) rows = torch::stable::contiguous(*rows);
  auto [weights, certificate, status] = solver_results(gram, rows);
  const KxkBatch batch{certificate.numel(),
                       static_cast<int>(num_tasks),
                       gram.const_data_ptr<double>(),
                       weights.mutable_data_ptr<double>(),
                       certificate.mutable_data_ptr<double>(),
                       status.mutable_data_ptr<int32_t>(),
                       rows ? static_cast<int>(rows->size(-2)) : 1,
                       rows ? rows->const_data_ptr<double>() : nullptr};
  check_launch(op, launch(batch, scope.stream()));
  return {weights, certificate, status};
}

}  // namespace mtl
