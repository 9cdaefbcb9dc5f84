// GradVac's corrections of one task, on coefficients: the running gradient is v = sum_k coefficients[k] g_k, with inner
// products products = G c and squared norm c^T G c. Adding a g_j changes coefficient j alone, and the products by row
// j.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "common/kxk/solve.h"

namespace mtl {

// Groups of parameters, each with a Gram matrix of its own.
struct GradvacBatch {
  int64_t num_groups;
  int num_tasks;
  const double* gram;    // [groups, K, K]
  const int64_t* order;  // [groups, K, K - 1], or [K, K - 1] for all where the stride is 0
  int64_t order_stride;  // from group to group
  const double* target;  // [groups, K, K]
  double beta;
  double* weights;     // [groups, K]
  double* new_target;  // [groups, K, K]

  // The batch of one group.
  MTL_TEAM_FUNCTION GradvacBatch group(int64_t i) const {
    const int64_t size = static_cast<int64_t>(num_tasks) * num_tasks;
    return {1,
            num_tasks,
            gram + i * size,
            order + i * order_stride,
            0,
            target + i * size,
            beta,
            weights + i * num_tasks,
            new_target + i * size};
  }
};

// A correction leaves targets this close to 1 alone: between parallel gradients it would be infinite.
constexpr double kParallel = 1e-12;

// coefficients [K]: the corrected gradient of `task`; products [K]: workspace. Also writes the task's row of
// new_target.
template <class Team>
MTL_TEAM_FUNCTION void gradvac_row(const Team& team, const GradvacBatch& group, int task, double* coefficients,
                                   double* products) {
  const int num_tasks = group.num_tasks;
  const double* own = group.gram + task * num_tasks;
  const double* target = group.target + task * num_tasks;
  double* new_target = group.new_target + task * num_tasks;
  double square = own[task];
  team.sync();  // another lane may still read the products of the task before
  for (int k = team.lane; k < num_tasks; k += team.size) {
    coefficients[k] = k == task && square > 0 ? 1.0 : 0.0;
    products[k] = own[k];
    new_target[k] = target[k];
  }
  team.sync();
  if (!(square > 0)) return;
  double length = sqrt(square);  // of the terms of v: what their rounding is relative to
#pragma unroll 1
  for (int step = 0; step + 1 < num_tasks; ++step) {
    const int64_t j = group.order[task * (num_tasks - 1) + step];
    if (j < 0 || j >= num_tasks || j == task) continue;
    const double* row = group.gram + j * num_tasks;
    if (!(row[j] > 0)) continue;
    const double norm = sqrt(square), other_norm = sqrt(row[j]), wanted = target[j];
    const double cosine = fmin(1.0, fmax(-1.0, products[j] / norm / other_norm));
    const double square_of_sine = (1 - wanted) * (1 + wanted);
    if (team.lane == 0) new_target[j] = (1 - group.beta) * wanted + group.beta * cosine;
    if (!(cosine < wanted && square_of_sine > kParallel)) continue;
    const double excess = wanted * sqrt((1 - cosine) * (1 + cosine) / square_of_sine) - cosine;
    const double amount = norm / other_norm * excess;
    team.sync();
    if (team.lane == 0) coefficients[j] += amount;
    for (int k = team.lane; k < num_tasks; k += team.size) products[k] += amount * row[k];
    team.sync();
    square = dot(team, coefficients, products, num_tasks);
    length += fabs(amount) * other_norm;
    if (!(square > num_tasks * DBL_EPSILON * length * length)) return;  // v has vanished, and with it every cosine
  }
}

// What a group whose Gram matrix is not finite gets: no weights, and its targets as they were.
template <class Team>
MTL_TEAM_FUNCTION void gradvac_refuse(const Team& team, const GradvacBatch& group) {
  const int num_tasks = group.num_tasks;
  for (int k = team.lane; k < num_tasks; k += team.size) group.weights[k] = NAN;
  for (int i = team.lane; i < num_tasks * num_tasks; i += team.size) group.new_target[i] = group.target[i];
}

}  // namespace mtl
