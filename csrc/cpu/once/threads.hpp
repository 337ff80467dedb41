// Runs numbered pieces of work on several threads.
#pragma once

#include <cstdint>

namespace lares {

// Threads, at most `most`, that so much work pays for waking.
int threads_for(int64_t most, double operations);

// piece(data, number) for numbers 0 .. count - 1, each on one of up to `threads` threads, this one
// among them, in no given order. The first exception that a piece throws is thrown again here.
//
// The threads are those of the OpenMP runtime that the process has loaded (torch's), if there is
// one and the system lets them run when they are called. Else, and in a forked child, they are ours
// (pool.hpp).
void run_pieces(int count, int threads, void (*piece)(void* data, int number), void* data);

}  // namespace lares
