// The engine's side of engine.h: a launch deals the blocks of its grid to OS threads, and the CUDA functions that a
// kernel calls go to the block that runs it.
#include "emulation/engine.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "emulation/block.h"
#include "emulation/launches.h"

namespace cuemu {
namespace {

// Limits that hold on every architecture from sm_80 on; sm_86 and sm_89 have the least shared memory.
void check_configuration(const Launch& launch) {
  const dim3 &grid = launch.grid, &block = launch.block;
  const auto refuse = [&](const std::string& what) { fail(launch.where, text("launch refused: %s", what.c_str())); };
  if (block.x * block.y * block.z == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.x * block.y * block.z > 1024) {
    refuse(text("block is %s, expected 1 to 1024 threads, z at most 64", text(block).c_str()));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    refuse(text("grid is %s, expected at least 1 each way, y and z at most 65535", text(grid).c_str()));
  }
  if (launch.shared_bytes > 99 * 1024) {
    refuse(text("dynamic shared memory is %zu bytes, expected at most 101376", launch.shared_bytes));
  }
}

struct RecentLaunches {
  std::mutex mutex;
  std::deque<LaunchRecord> records;
};

RecentLaunches& recent() {
  static RecentLaunches launches;
  return launches;
}

void remember(const LaunchRecord& record) {
  const std::lock_guard lock(recent().mutex);
  recent().records.push_back(record);
  if (recent().records.size() > 256) recent().records.pop_front();
}

}  // namespace

std::deque<LaunchRecord> take_launches() {
  const std::lock_guard lock(recent().mutex);
  return std::exchange(recent().records, {});
}

void run_launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(const void*), const void* arguments,
                const Where& where) {
  const Launch launch{grid, block, shared_bytes, kernel, arguments, controls(), where};
  check_configuration(launch);
  remember({where, grid, block, shared_bytes});
  std::vector<size_t> blocks(size_t{grid.x} * grid.y * grid.z);
  Random random(launch.controls.seed);
  arrange(blocks, launch.controls.order, random);
  const size_t workers = std::min<size_t>(launch.controls.threads, blocks.size());
  const auto work = [&](size_t worker) {
    BlockRunner& runner = BlockRunner::of_os_thread();
    runner.begin(launch);
    for (size_t i = worker; i < blocks.size(); i += workers) {
      const size_t b = blocks[i];
      const uint3 index{static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y)};
      runner.run(index, launch.controls.seed + b);
    }
    runner.end();
  };
  std::vector<std::thread> others;
  for (size_t worker = 1; worker < workers; ++worker) others.emplace_back(work, worker);
  work(0);
  for (std::thread& other : others) other.join();
}

unsigned char* dyn_smem() { return BlockRunner::current().shared(); }

unsigned lane() { return BlockRunner::current().lane(); }

unsigned segment(int width, const Where& where) {
  if (width < 1 || width > warpSize || (width & (width - 1)) != 0) {
    fail_here(where, text("shuffle has width %d, expected a power of two up to 32", width));
  }
  return lane() & ~(static_cast<unsigned>(width) - 1);
}

Votes barrier(bool predicate, const Where& where) { return BlockRunner::current().barrier(predicate, where); }

void sync_warp(uint32_t mask, const Where& where) {
  BlockRunner::current().meet(mask, &mask, sizeof mask, /*orders_memory=*/true, where);
}

void shuffle(uint32_t mask, void* value, size_t bytes, unsigned source, const Where& where) {
  Unwatched bookkeeping;
  if (!(mask >> source & 1)) {
    fail_here(where, text("shuffle reads lane %u, which is not among lanes 0x%08x", source, mask));
  }
  const WarpMeeting::Slots& slots = BlockRunner::current().meet(mask, value, bytes, /*orders_memory=*/false, where);
  std::memcpy(value, &slots[source], bytes);
}

uint32_t ballot(uint32_t mask, bool predicate, const Where& where) {
  Unwatched bookkeeping;
  const WarpMeeting::Slots& slots = BlockRunner::current().meet(mask, &predicate, 1, /*orders_memory=*/false, where);
  uint32_t result = 0;
  for (int lane = 0; lane < warpSize; ++lane) {
    if (mask >> lane & 1) result |= static_cast<uint32_t>(slots[lane][0]) << lane;
  }
  return result;
}

}  // namespace cuemu
