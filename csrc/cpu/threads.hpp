// Runs numbered pieces of work on several threads.
#pragma once

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace lares {

// body(piece) for pieces 0 .. count - 1, each on one of up to `threads` threads, in no given order.
// Threads live as long as the call: nothing is left behind for a fork to lose. The first exception
// that a piece throws is thrown again here.
template <class Body>
void run_pieces(int count, int threads, const Body& body) {
  if (threads > count) threads = count;
  std::atomic<int> next{0};
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  const auto work = [&] {
    try {
      for (int piece; !failed && (piece = next++) < count;) body(piece);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  } catch (const std::exception&) {
    // No more threads to be had: those there are do the work.
  }
  work();
  for (auto& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace lares
