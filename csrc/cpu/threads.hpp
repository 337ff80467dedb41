// Runs numbered pieces of work on several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace lares {

// While it lives, this thread's numbers below 1e-38 count as zero. Lanes past the end of a group
// hold leftovers that nobody reads, but each such number in them would cost as much as a hundred
// others.
class FlushTinyNumbers {
  public:
#if defined(__x86_64__)
    FlushTinyNumbers() : before_(_mm_getcsr()) {
        _mm_setcsr(before_ | kFlushResults | kFlushInputs);
    }
    ~FlushTinyNumbers() { _mm_setcsr(before_); }

  private:
    static constexpr unsigned kFlushResults = 0x8000, kFlushInputs = 0x0040;
    unsigned before_;
#elif defined(__aarch64__)
    FlushTinyNumbers() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | kFlush));
    }
    ~FlushTinyNumbers() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

  private:
    static constexpr uint64_t kFlush = uint64_t(1) << 24;
    uint64_t before_;
#else
    FlushTinyNumbers() {}
#endif
};

// Threads, at most `most`, that so much work pays for waking.
inline int threads_for(int64_t most, double operations) {
    constexpr double kOperationsPerThread = 2e7;
    const double wanted = operations / kOperationsPerThread;
    if (most < 1) most = 1;
    return wanted < double(most) ? 1 + int(wanted) : int(most);
}

// work(data) on up to `threads` threads, this one among them; returns when all are done. `work`
// must not throw.
//
// They are the threads of the OpenMP runtime that the process has loaded (torch's), if there is
// one. After each of its loops torch's threads spin for milliseconds in wait of the next, and
// others would have to share the processors with them. Else, and in a forked child, they are
// threads that live as long as the call.
void run_team(int threads, void (*work)(void*), void* data);

// body(piece) for pieces 0 .. count - 1, each on one of up to `threads` threads, in no given order.
// The first exception that a piece throws is thrown again here.
template <class Body>
void run_pieces(int count, int threads, const Body& body) {
    if (threads > count) threads = count;
    std::atomic<int> next{0};
    std::exception_ptr error;
    std::atomic<bool> failed{false};
    auto work = [&] {
        const FlushTinyNumbers flush;
        try {
            for (int piece; !failed && (piece = next++) < count;) body(piece);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    };
    run_team(threads, [](void* data) { (*static_cast<decltype(work)*>(data))(); }, &work);
    if (error) std::rethrow_exception(error);
}

}  // namespace lares
