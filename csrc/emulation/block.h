// Runs the blocks of a launch. Every thread of a block is a fiber that runs the kernel until it reaches a barrier or a
// warp function, where it waits until all threads that must meet there have arrived; then they become ready again. One
// OS thread runs a block from beginning to end, several share the blocks of a grid.
//
// This is as free as the CUDA model allows: between two meetings no thread, and no lane of a warp, waits for another.
// A kernel that relies on lanes in lockstep, on the order of warps or on the order of blocks gives itself away under
// one of the schedules of controls.h. What CUDA calls undefined ends the process with the kernel's file and line.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "emulation/controls.h"
#include "emulation/engine.h"
#include "emulation/fault.h"
#include "emulation/fiber.h"

namespace cuemu {

struct Launch {
  dim3 grid, block;
  size_t shared_bytes;
  void (*kernel)(const void* arguments);
  const void* arguments;
  Controls controls;
  Where where;
};

using Random = std::mt19937_64;

template <class Sequence>
void arrange(Sequence& turns, Order order, Random& random) {
  std::iota(turns.begin(), turns.end(), 0);
  if (order == Order::kReverse) std::reverse(turns.begin(), turns.end());
  if (order == Order::kRandom) std::shuffle(turns.begin(), turns.end(), random);
}

// A block's dynamic shared memory: a heap block of its own, so that AddressSanitizer sees its ends, filled with the
// bytes of a NaN (of -1 as an integer), so that a value read before it is written shows in the result.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes) {
    const size_t rounded = (bytes + 15) / 16 * 16;
    if (bytes == 0) return;
    memory_.reset(static_cast<unsigned char*>(std::aligned_alloc(16, rounded)));
    std::memset(memory_.get(), 0xff, bytes);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory_.get() + bytes, rounded - bytes);
#endif
  }
  unsigned char* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(unsigned char* memory) const { std::free(memory); }
  };
  std::unique_ptr<unsigned char, Free> memory_;
};

// The lanes of one mask meet here, over and over. Values live in two sets of slots used in turn: a lane that runs ahead
// to the next meeting must not overwrite what a slower one has still to read, and it cannot get two meetings ahead.
struct WarpMeeting {
  using Slots = std::array<std::array<unsigned char, 8>, warpSize>;
  uint32_t arrived = 0;
  unsigned generation = 0;
  Where where;
  Slots slots[2];
};

enum class State : uint8_t { kReady, kAtBarrier, kAtWarpMeeting, kEnded };

struct Warp {
  uint32_t absent = 0;                       // lanes that the block does not have, or that have left the kernel
  std::map<uint32_t, WarpMeeting> meetings;  // by mask
};

// One CUDA thread.
struct Thread : Fiber {
  using Fiber::Fiber;
  State state = State::kReady;
  uint3 index{};
  unsigned rank = 0;  // warps are made of 32 threads of consecutive ranks
  Where where;        // of the call it waits in
  uint32_t mask = 0;  // of the warp meeting it waits at

  unsigned warp() const { return rank / warpSize; }
  unsigned lane() const { return rank % warpSize; }
  uint32_t lane_bit() const { return 1u << lane(); }
};

// The fibers that run a block, and what orders their accesses for ThreadSanitizer. It takes a fiber for one thread, so
// that it could never see a race between two blocks that the same fibers run. With two crews used in turn it sees those
// of a block with the one before it. (Fresh fibers for each block would show all, at half a millisecond per fiber.)
struct Crew {
  std::vector<std::unique_ptr<Thread>> threads;
  char barrier_keys[2] = {};
};
#if defined(__SANITIZE_THREAD__)
constexpr int kCrews = 2;
#else
constexpr int kCrews = 1;
#endif

class BlockRunner {
 public:
  // The runner of the calling OS thread; kept between launches, because it owns the stacks.
  static BlockRunner& of_os_thread() {
    static thread_local BlockRunner runner;
    return runner;
  }
  static BlockRunner& current() { return *self_; }

  // What happened before the launch happens before all that the blocks do.
  void begin(const Launch& launch) {
    Unwatched bookkeeping;
    const dim3 size = launch.block;
    const unsigned count = size.x * size.y * size.z;
    launch_ = &launch;
    gridDim = launch.grid;
    blockDim = size;
    for (Crew& crew : crews_) {
      while (crew.threads.size() < count) crew.threads.push_back(std::make_unique<Thread>(&thread_main));
      for (unsigned i = 0; i < count; ++i) {
        crew.threads[i]->index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        crew.threads[i]->rank = i;
      }
    }
    warps_.resize((count + warpSize - 1) / warpSize);
    turns_.resize(warps_.size());
    release(&begin_key_);
  }

  void run(uint3 block, uint64_t seed) {
    Unwatched bookkeeping;
    Random random(seed);
    const SharedMemory shared(launch_->shared_bytes);
    shared_ = shared.data();
    blockIdx = block;
    crew_ = &crews_[blocks_run_++ % kCrews];
    threads_ = {crew_->threads.data(), blockDim.x * blockDim.y * blockDim.z};
    ended_ = waiting_ = generation_ = 0;
    votes_[0] = {};
    for (Warp& warp : warps_) warp = {.absent = ~0u, .meetings = {}};
    for (const auto& thread : threads_) {
      thread->state = State::kReady;
      warps_[thread->warp()].absent &= ~thread->lane_bit();
    }
    while (ended_ < threads_.size()) {
      if (!run_round(random)) fail_deadlock();
    }
  }

  // What the blocks did happens before what follows the launch. Blocks do not wait for each other: this comes once per
  // launch, not once per block.
  void end() { acquire(&end_key_); }

  unsigned char* shared() const { return shared_; }
  unsigned lane() const { return running_->lane(); }

  // __syncthreads: the running thread waits for all threads of the block.
  Votes barrier(bool predicate, const Where& where) {
    Unwatched bookkeeping;
    if (ended_ > 0) fail_here(where, text("divergent barrier: %u threads have left the kernel", ended_));
    if (waiting_ == 0) barrier_ = where;
    if (!same(barrier_, where)) {
      fail_here(where, text("divergent barrier: other threads wait at %s", text(barrier_).c_str()));
    }
    const unsigned parity = generation_ % 2;
    votes_[parity].all &= predicate;
    votes_[parity].any |= predicate;
    votes_[parity].count += predicate;
    release(&crew_->barrier_keys[parity]);
    if (++waiting_ == threads_.size()) {
      waiting_ = 0;
      votes_[++generation_ % 2] = {};
      for (const auto& thread : threads_) thread->state = State::kReady;
    } else {
      wait(State::kAtBarrier, where);
    }
    acquire(&crew_->barrier_keys[parity]);
    return votes_[parity];
  }

  // A *_sync function: the running lane hands in `bytes` bytes of `value`, waits for the lanes of `mask`, and gets what
  // each of them handed in. Only __syncwarp orders accesses to memory; shuffles and votes do not.
  const WarpMeeting::Slots& meet(uint32_t mask, const void* value, size_t bytes, bool orders_memory,
                                 const Where& where) {
    Unwatched bookkeeping;
    check_mask(mask, where);
    WarpMeeting& meeting = warps_[running_->warp()].meetings[mask];
    if (meeting.arrived == 0) meeting.where = where;
    if (!same(meeting.where, where)) {
      fail_here(where,
                text("divergent warp function: other lanes of 0x%08x wait at %s", mask, text(meeting.where).c_str()));
    }
    WarpMeeting::Slots& slots = meeting.slots[meeting.generation % 2];
    std::memcpy(&slots[running_->lane()], value, bytes);
    if (orders_memory) release(&slots);
    meeting.arrived |= running_->lane_bit();
    if (meeting.arrived == mask) {
      meeting.arrived = 0;
      ++meeting.generation;
      wake_lanes(mask);
    } else {
      running_->mask = mask;
      wait(State::kAtWarpMeeting, where);
    }
    if (orders_memory) acquire(&slots);
    return slots;
  }

 private:
  BlockRunner() { self_ = this; }

  // A fiber's life: one thread of one block after the other.
  static void thread_main() {
    BlockRunner& runner = current();
    runner.os_thread_.left_for_new_fiber();
    while (true) {
      acquire(&runner.begin_key_);
      runner.launch_->kernel(runner.launch_->arguments);
      runner.mark_ended();
      release(&runner.end_key_);
      runner.running_->switch_to(runner.os_thread_);
    }
  }

  void mark_ended() {
    Unwatched bookkeeping;
    if (waiting_ > 0) {
      fail_here(barrier_, "divergent barrier: it has left the kernel, but other threads wait here");
    }
    running_->state = State::kEnded;
    warps_[running_->warp()].absent |= running_->lane_bit();
    ++ended_;
  }

  void wait(State state, const Where& where) {
    running_->state = state;
    running_->where = where;
    running_->switch_to(os_thread_);
  }

  void wake_lanes(uint32_t mask) {
    const size_t first = running_->rank - running_->lane();
    const size_t end = std::min(first + warpSize, threads_.size());
    for (size_t i = first; i < end; ++i) {
      Thread& thread = *threads_[i];
      if (thread.state == State::kAtWarpMeeting && thread.mask == mask) thread.state = State::kReady;
    }
  }

  void check_mask(uint32_t mask, const Where& where) const {
    if (!(mask & running_->lane_bit())) fail_here(where, text("lanes 0x%08x do not include the calling lane", mask));
    const uint32_t absent = mask & warps_[running_->warp()].absent;
    if (absent == 0) return;
    const unsigned lane = std::countr_zero(absent);
    const bool exists = running_->rank - running_->lane() + lane < threads_.size();
    fail_here(where, text("lanes 0x%08x include lane %u, which %s", mask, lane,
                          exists ? "has left the kernel" : "the block does not have"));
  }

  // Gives each ready thread a turn, warp by warp; false if there was none. A warp goes on until all its lanes wait,
  // under the random order until then or until chance moves on to another warp.
  bool run_round(Random& random) {
    const Order order = launch_->controls.order;
    bool progress = false;
    arrange(turns_, order, random);
    for (const unsigned warp : turns_) {
      while (run_lanes(warp, random)) {
        progress = true;
        if (order == Order::kRandom && random() % 2 == 0) break;
      }
    }
    return progress;
  }

  bool run_lanes(unsigned warp, Random& random) {
    std::array<unsigned, warpSize> lanes;
    arrange(lanes, launch_->controls.order, random);
    bool progress = false;
    for (const unsigned lane : lanes) {
      const unsigned thread = warp * warpSize + lane;
      if (thread >= threads_.size() || threads_[thread]->state != State::kReady) continue;
      running_ = threads_[thread].get();
      threadIdx = running_->index;
      os_thread_.switch_to(*running_);
      progress = true;
    }
    return progress;
  }

  // Names each place where threads wait, with the first of them.
  [[noreturn]] void fail_deadlock() const {
    std::string message = text("deadlock in block %s", text(blockIdx).c_str());
    const Thread* last = nullptr;
    for (const auto& thread : threads_) {
      if (thread->state == State::kEnded || (last && same(last->where, thread->where))) continue;
      last = thread.get();
      const std::string lanes = text("lanes 0x%08x", thread->mask);
      message += text("\n  thread %s waits at %s for %s", text(thread->index).c_str(), text(thread->where).c_str(),
                      thread->state == State::kAtBarrier ? "all threads of the block" : lanes.c_str());
    }
    fail(last->where, message);
  }

  static inline constinit thread_local BlockRunner* self_ = nullptr;

  const Launch* launch_ = nullptr;
  unsigned char* shared_ = nullptr;
  OsThread os_thread_;
  std::array<Crew, kCrews> crews_;
  Crew* crew_ = nullptr;                              // of the running block
  std::span<const std::unique_ptr<Thread>> threads_;  // those of the crew that the block needs
  std::vector<Warp> warps_;
  std::vector<unsigned> turns_;  // the warps, in the order of their turns
  Thread* running_ = nullptr;
  unsigned ended_ = 0;
  size_t blocks_run_ = 0;

  // The block's barrier. Votes and keys alternate for the reason given at WarpMeeting.
  Where barrier_;
  unsigned waiting_ = 0, generation_ = 0;
  Votes votes_[2];
  char begin_key_ = 0, end_key_ = 0;
};

}  // namespace cuemu
