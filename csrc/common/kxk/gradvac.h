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

// inverse [K] = 1 / the gradients' norms, 0 for a zero gradient.
template <class Team>
MTL_TEAM_FUNCTION void gradvac_inverse_norms(const Team& team, const GradvacBatch& group, double* inverse) {
#pragma unroll 1
  for (int k = team.lane; k < group.num_tasks; k += team.size) {
    const double square = group.gram[k * (group.num_tasks + 1)];
    inverse[k] = square > 0 ? 1 / sqrt(square) : 0;
  }
}

// Loops over a lane's tasks are not unrolled: they have a few rounds, and registers are what the kernel is short of.
//
// coefficients [K]: the corrected gradient of `task`; products [K]: workspace. Also writes the task's row of
// new_target.
template <class Team>
MTL_TEAM_FUNCTION void gradvac_row(const Team& team, const GradvacBatch& group, const double* inverse, int task,
                                   double* coefficients, double* products) {
  const int num_tasks = group.num_tasks;
  double* target = group.new_target + task * num_tasks;
  const bool present = inverse[task] > 0;
  team.sync();  // another lane may still read the products of the task before
#pragma unroll 1
  for (int k = team.lane; k < num_tasks; k += team.size) {
    coefficients[k] = k == task && present ? 1.0 : 0.0;
    products[k] = group.gram[task * num_tasks + k];
    target[k] = group.target[task * num_tasks + k];
  }
  team.sync();
  if (!present) return;
  double norm = sqrt(products[task]), inverse_norm = inverse[task];
  double terms = norm;  // the lengths of the terms of v: what their rounding is relative to
#pragma unroll 1
  for (int step = 0; step + 1 < num_tasks; ++step) {
    const int64_t other = group.order[task * (num_tasks - 1) + step];
    if (other < 0 || other >= num_tasks || other == task || !(inverse[other] > 0)) continue;
    const int j = static_cast<int>(other);
    const double wanted = target[j], cosine = fmin(1.0, fmax(-1.0, products[j] * inverse[j] * inverse_norm));
    team.sync();
    if (team.lane == 0) target[j] = (1 - group.beta) * wanted + group.beta * cosine;
    const double square_of_sine = (1 - wanted) * (1 + wanted);
    if (!(cosine < wanted && square_of_sine > kParallel)) continue;
    const double grown = norm * (wanted * sqrt((1 - cosine) * (1 + cosine) / square_of_sine) - cosine);
    const double amount = grown * inverse[j];
    if (team.lane == 0) coefficients[j] += amount;
#pragma unroll 1
    for (int k = team.lane; k < num_tasks; k += team.size) products[k] += amount * group.gram[j * num_tasks + k];
    team.sync();
    const double square = dot(team, coefficients, products, num_tasks);
    terms += fabs(grown);
    if (!(square > num_tasks * DBL_EPSILON * terms * terms)) return;  // v has vanished, and with it every cosine
    norm = sqrt(square);
    inverse_norm = 1 / norm;
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
