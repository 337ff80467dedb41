// Matrix products on register blocks of kBlockRows x kPanel.
//
// The functor that takes each finished vector must be a light one: constants of a long computation
// would be hoisted into the registers that the sums need.
#pragma once

#include "panels.hpp"

namespace lares::LARES_ISA {

// kTransposed: A is stored K x M.
template <int M, int V, bool kTransposed, class Take>
LARES_INLINE void product_block(const Operand* a, ptrdiff_t a_stride, const Operand* b,
                                ptrdiff_t b_stride, int depth, int row, int column,
                                const Take& take) {
    Vec acc[M][V];
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) acc[m][v] = Vec{};
    // Not unrolled further: twice as much in the loop ran at 82% of the peak, this at 95%.
#pragma GCC unroll 1
    for (int k = 0; k < depth; ++k) {
        OperandVec bk[V];
        for (int v = 0; v < V; ++v) bk[v] = load(b + k * b_stride + v * kLanes);
        for (int m = 0; m < M; ++m) {
            const OperandVec am =
                broadcast(kTransposed ? a[k * a_stride + m] : a[m * a_stride + k]);
            for (int v = 0; v < V; ++v) acc[m][v] = multiply_add(am, bk[v], acc[m][v]);
        }
    }
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) take(row + m, column + v * kLanes, acc[m][v]);
}

// A function of its own, whose registers are the loop's alone: inlined into a larger one, as
// compilers now and then do, the loop is slower.
template <int M, int V, bool kTransposed, class Take>
LARES_APART void product_blocks(int blocks, int depth, const Operand* a, ptrdiff_t a_stride,
                                const Operand* b, ptrdiff_t b_stride, int row, int column,
                                const Take& take) {
    for (int i = 0; i < blocks; ++i, row += M)
        product_block<M, V, kTransposed>(kTransposed ? a + row : a + row * a_stride, a_stride, b,
                                         b_stride, depth, row, column, take);
}

template <int V, bool kTransposed, class Take>
inline void product_rows(int rows, int depth, const Operand* a, ptrdiff_t a_stride,
                         const Operand* b, ptrdiff_t b_stride, int column, const Take& take) {
    // Blocks of nearly equal height: a remainder of one row would run at a sixth of the speed.
    const int blocks = (rows + kBlockRows - 1) / kBlockRows;
    const int tallest = (rows + blocks - 1) / blocks;
    const int tall = rows - blocks * (tallest - 1);
    // The height is chosen outside the loop over blocks: inside it cost 3% of the time.
    const auto run = [&](int height, int count, int row) LARES_INLINE_LAMBDA {
        switch (height) {
#define LARES_CASE(M)                                                                         \
    case M:                                                                                   \
        return product_blocks<M, V, kTransposed>(count, depth, a, a_stride, b, b_stride, row, \
                                                 column, take);
            LARES_CASE(1)
            LARES_CASE(2)
            LARES_CASE(3)
            LARES_CASE(4)
            LARES_CASE(5)
            LARES_CASE(6)
#undef LARES_CASE
        }
    };
    run(tallest, tall, 0);
    if (tall < blocks) run(tallest - 1, blocks - tall, tall * tallest);
}

template <bool kTransposed = false, class Take>
inline void product(int rows, int columns, int depth, Left a, Panels b, const Take& take) {
    if (rows == 0) return;
    depth = folds(depth);
    for (int column = 0; column < columns; column += kPanel) {
        const int width = columns - column < kPanel ? columns - column : kPanel;
        const ptrdiff_t stride = b.row_stride ? b.row_stride : width;
        const Operand* panel = b.data + column / kPanel * b.panel_stride + b.first_row * stride;
        if (width == kPanel) {
            product_rows<kPanelVectors, kTransposed>(rows, depth, a.data, a.stride, panel, stride,
                                                     column, take);
            continue;
        }
        int at = 0;
        for (; kPanelVectors > 2 && width - at >= 2 * kLanes; at += 2 * kLanes)
            product_rows<2, kTransposed>(rows, depth, a.data, a.stride, panel + at, stride,
                                         column + at, take);
        for (; at < width; at += kLanes)
            product_rows<1, kTransposed>(rows, depth, a.data, a.stride, panel + at, stride,
                                         column + at, take);
    }
}

}  // namespace lares::LARES_ISA
