// Scratch memory: one block, carved from the front, kept for the next call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace lares {

constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

class Arena {
  public:
    // Room for `bytes` at least; what was carved before is gone.
    void reserve(size_t bytes) {
        used_ = 0;
        if (bytes <= size_) return;
        memory_.reset();
        size_ = 0;
        const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
        memory_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, rounded)));
        if (!memory_) throw std::bad_alloc();
        size_ = rounded;
    }

    template <class T>
    T* take(size_t count) {
        T* at = reinterpret_cast<T*>(memory_.get() + used_);
        used_ += bytes_of<T>(count);
        if (used_ > size_) throw std::bad_alloc();
        return at;
    }

    template <class T>
    static size_t bytes_of(size_t count) {
        return (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    }

  private:
    struct Free {
        void operator()(char* p) const { std::free(p); }
    };
    std::unique_ptr<char, Free> memory_;
    size_t size_ = 0, used_ = 0;
};

// Arenas at rest. A call borrows what it needs and gives it back, so that the pages of one call
// serve the next; fresh ones would be faulted in again each time.
class ArenaPool {
  public:
    std::unique_ptr<Arena> borrow() {
        std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.empty()) return std::make_unique<Arena>();
        auto arena = std::move(idle_.back());
        idle_.pop_back();
        return arena;
    }

    void give_back(std::unique_ptr<Arena> arena) noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.size() == idle_.capacity()) return;  // more than ever run at once: freed
        idle_.push_back(std::move(arena));
    }

    // Held over fork, so that a child never inherits a lock whose owner is gone.
    std::mutex& mutex() { return mutex_; }

    static ArenaPool& instance() {
        static ArenaPool* pool = new ArenaPool;  // outlives every thread
        return *pool;
    }

  private:
    ArenaPool() { idle_.reserve(256); }
    std::mutex mutex_;
    std::vector<std::unique_ptr<Arena>> idle_;
};

class BorrowedArena {
  public:
    BorrowedArena() : arena_(ArenaPool::instance().borrow()) {}
    ~BorrowedArena() { ArenaPool::instance().give_back(std::move(arena_)); }
    BorrowedArena(const BorrowedArena&) = delete;
    BorrowedArena& operator=(const BorrowedArena&) = delete;
    Arena& operator*() const { return *arena_; }
    Arena* operator->() const { return arena_.get(); }

  private:
    std::unique_ptr<Arena> arena_;
};

}  // namespace lares
