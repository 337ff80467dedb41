#include "pool.hpp"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <exception>
#include <thread>

namespace lares {

void Pool::serve() {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "lares");  // for who looks which threads a process has
#endif
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        Job* job = first_;
        while (job && job->wanted == 0) job = job->next;
        if (!job) {
            posted_.wait(lock);
            continue;
        }
        --job->wanted;
        ++job->at_work;
        lock.unlock();
        job->work(job->data);
        lock.lock();
        // Under the lock: once the caller has seen that no thread is left, the job is gone.
        if (--job->at_work == 0) job->left.notify_one();
    }
}

void Pool::start_threads(int most) {
    // Signals are for the threads of the program around us.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        for (; threads_ < most; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::exception&) {
        // The system gives no more threads: those that exist do the work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pool::run(int threads, void (*work)(void*), void* data) {
    Job job{work, data, threads - 1};
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        start_threads(threads - 1);
        job.next = first_;
        first_ = &job;
    }
    for (int i = 1; i < threads; ++i) posted_.notify_one();
    work(data);

    std::unique_lock<std::mutex> lock(mutex_);
    Job** at = &first_;
    while (*at != &job) at = &(*at)->next;
    *at = job.next;
    job.left.wait(lock, [&] { return job.at_work == 0; });
}

namespace {

// Never destroyed: its threads use it until the process ends.
std::atomic<Pool*> current{nullptr};

// Threads do not survive a fork, and the lock may be held by one that did not.
const int fork_watch = pthread_atfork(nullptr, nullptr, [] { current = nullptr; });

}  // namespace

Pool& pool() {
    (void)fork_watch;
    Pool* there = current;
    if (there) return *there;
    Pool* made = new Pool;
    if (current.compare_exchange_strong(there, made)) return *made;
    delete made;
    return *there;
}

}  // namespace lares
