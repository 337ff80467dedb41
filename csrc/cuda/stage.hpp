// Parameters on their way to shared memory: once for all steps, or, of weights that do not fit it
// together, a piece at a time for each layer of each step.
#pragma once

#include "products.hpp"

namespace lares::cuda {

// All warps of the block bring `bytes` into shared memory, there after copies_done() and a barrier.
LARES_DEVICE void copy_shared(const Block& block, unsigned char* to, const void* from, int bytes) {
    LARES_ROLLED
    for (int first = 32 * block.warp; 16 * first < bytes; first += 32 * block.warps) {
        const Int piece = first + lane_number();
        copy16(to, static_cast<const unsigned char*>(from), piece, 16 * piece < bytes);
    }
}

// Staged weights: a piece crosses from the L2 cache once for all warps of the block, which meet at
// every piece, whether they multiply by it or not. There are two, the one in use and the next,
// which is on its way meanwhile.
template <class S>
struct Stage {
    static constexpr int kBytes = S::kPiece * kFragment;

    const Block& block;
    unsigned char* pieces;  // two, in shared memory
    const unsigned char* matrices;
    int next = 0;  // 0 or kBytes: where the next piece goes

    // Start to bring `count` fragments from `first` on, which are the next piece.
    LARES_DEVICE void bring(int first, int count) const {
        copy_shared(block, pieces + next, matrices + first * kFragment, count * kFragment);
    }
    // Wait for the next piece, and start to bring the one after it: fragments as for bring().
    LARES_DEVICE Fragments<true> take(int first, int count) {
        copies_done();
        block.barrier();  // it is there, and nobody reads the one before any longer
        const Fragments<true> taken = {pieces + next};
        next = kBytes - next;
        bring(first, count);
        return taken;
    }
};

}  // namespace lares::cuda
