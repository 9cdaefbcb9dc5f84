// What launches asked for, kept for tables of launch sizes.
#pragma once

#include <cstddef>
#include <deque>

#include "emulation/engine.h"

namespace cuemu {

struct LaunchRecord {
  Where where;
  dim3 grid, block;
  size_t shared_bytes;
};

// Hands out the launches since the last call, at most 256 of them, oldest first.
std::deque<LaunchRecord> take_launches();

}  // namespace cuemu
