// Scratch memory: a block that outlives the call that borrowed it.
#pragma once

#include <cstddef>

namespace lares {

constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

class Scratch {
  public:
    // Memory of `bytes` at least; that of an earlier reserve() is gone. Throws std::bad_alloc.
    char* reserve(size_t bytes);

    Scratch() noexcept = default;
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

  private:
    char* memory_ = nullptr;
    size_t size_ = 0;
};

// A block at rest, or a new one. A call gives back what it borrowed, so that the pages of one call
// serve the next; fresh ones would be faulted in again each time. Throws std::bad_alloc.
Scratch* borrow_scratch();
void give_back_scratch(Scratch* scratch) noexcept;

}  // namespace lares
