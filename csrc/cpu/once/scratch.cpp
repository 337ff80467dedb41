#include "scratch.hpp"

#include <pthread.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace lares {

char* Scratch::reserve(size_t bytes) {
    if (bytes <= size_) return memory_;
    std::free(memory_);
    size_ = 0;
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    memory_ = static_cast<char*>(std::aligned_alloc(kAlignment, bytes));
    if (!memory_) throw std::bad_alloc();
    size_ = bytes;
    return memory_;
}

Scratch::~Scratch() { std::free(memory_); }

namespace {

struct Pool {
    std::mutex mutex;
    std::vector<Scratch*> idle;

    Pool() { idle.reserve(256); }
    static Pool& instance() {
        static Pool* pool = new Pool;  // outlives every thread
        return *pool;
    }
};

// A lock held by another thread at the moment of a fork would stay locked in the child for ever.
struct ForkGuard {
    ForkGuard() {
        Pool::instance();
        pthread_atfork([] { Pool::instance().mutex.lock(); },
                       [] { Pool::instance().mutex.unlock(); },
                       [] { Pool::instance().mutex.unlock(); });
    }
} fork_guard;

}  // namespace

Scratch* borrow_scratch() {
    Pool& pool = Pool::instance();
    std::lock_guard<std::mutex> lock(pool.mutex);
    if (pool.idle.empty()) return new Scratch;
    Scratch* scratch = pool.idle.back();
    pool.idle.pop_back();
    return scratch;
}

void give_back_scratch(Scratch* scratch) noexcept {
    Pool& pool = Pool::instance();
    std::lock_guard<std::mutex> lock(pool.mutex);
    if (pool.idle.size() == pool.idle.capacity())
        delete scratch;  // more than ever run at once
    else
        pool.idle.push_back(scratch);
}

}  // namespace lares
