// How the emulator interleaves the threads of a launch: what a test varies to bring a missing barrier to light.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace cuemu {

// The order in which blocks, the warps of a block and the lanes of a warp get their turns.
enum class Order { kForward, kReverse, kRandom };

struct Controls {
  Order order = Order::kForward;
  uint64_t seed = 1;                                                     // of Order::kRandom
  unsigned threads = std::max(1u, std::thread::hardware_concurrency());  // OS threads that share the blocks of a grid
};

inline const char* order_name(Order order) {
  switch (order) {
    case Order::kForward:
      return "fwd";
    case Order::kReverse:
      return "rev";
    default:
      return "rand";
  }
}

inline Order parse_order(std::string_view text) {
  for (const Order order : {Order::kForward, Order::kReverse, Order::kRandom}) {
    if (text == order_name(order)) return order;
  }
  throw std::invalid_argument("emulator: order is '" + std::string(text) + "', expected fwd, rev or rand");
}

inline unsigned checked_threads(uint64_t threads) {
  if (threads >= 1 && threads <= 1024) return static_cast<unsigned>(threads);
  throw std::invalid_argument("emulator: threads is " + std::to_string(threads) + ", expected 1 to 1024");
}

inline uint64_t parse_number(const char* name, std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  throw std::invalid_argument(std::string("emulator: ") + name + " is '" + std::string(text) +
                              "', expected a non-negative integer");
}

inline Controls controls_from_environment() {
  Controls controls;
  if (const char* text = std::getenv("CUEMU_ORDER")) controls.order = parse_order(text);
  if (const char* text = std::getenv("CUEMU_SEED")) controls.seed = parse_number("CUEMU_SEED", text);
  if (const char* text = std::getenv("CUEMU_THREADS")) {
    controls.threads = checked_threads(parse_number("CUEMU_THREADS", text));
  }
  return controls;
}

// The controls of the launches to come.
inline Controls& controls() {
  static Controls controls = controls_from_environment();
  return controls;
}

}  // namespace cuemu
