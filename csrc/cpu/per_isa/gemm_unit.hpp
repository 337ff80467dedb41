// Matrix products on the matrix unit, blocks of 16 rows x 1 panel.
//
// An element's value depends on its row and column alone, not on where its block lies.
#pragma once

#include "panels.hpp"

namespace lares::LARES_ISA {

// Pairs of a sum that do not fill a step of the matrix unit.
template <int V>
LARES_INLINE void add_rest(const Operand* a, const Operand* b, ptrdiff_t b_stride, int pairs,
                           Vec (&sums)[V]) {
    for (int k = 0; k < pairs; ++k)
        for (int v = 0; v < V; ++v)
            sums[v] = multiply_add(broadcast(a[k]), load(b + k * b_stride + v * kLanes), sums[v]);
}

// V vectors of columns, for all rows.
template <int V, class Take>
inline void unit_columns(int rows, int pairs, Left a, const Operand* b, ptrdiff_t b_stride,
                         int column, const Take& take) {
    alignas(64) float sums[kUnitRows * 4 * kLanes];
    const int steps = pairs / kUnitPairs, done = steps * kUnitPairs;
    for (int row = 0; row < rows; row += kUnitRows) {
        const Operand* from = a.data + row * a.stride;
        unit_product<V>(from, a.stride, b, b_stride, steps, sums);
        const int count = rows - row < kUnitRows ? rows - row : kUnitRows;
        for (int m = 0; m < count; ++m) {
            Vec sum[V];
            for (int v = 0; v < V; ++v) sum[v] = load(sums + (m * 4 + v) * kLanes);
            if (done < pairs)
                add_rest(from + m * a.stride + done, b + done * b_stride, b_stride, pairs - done,
                         sum);
            for (int v = 0; v < V; ++v) take(row + m, column + v * kLanes, sum[v]);
        }
    }
}

template <bool kTransposed = false, class Take>
inline void product(int rows, int columns, int depth, Left a, Panels b, const Take& take) {
    const int pairs = kTransposed ? summed_rows(depth) / kFold : folds(depth);
    for (int column = 0; column < columns; column += kPanel) {
        const int width = columns - column < kPanel ? columns - column : kPanel;
        const ptrdiff_t stride = b.row_stride ? b.row_stride : width;
        const Operand* panel = b.data + column / kPanel * b.panel_stride + b.first_row * stride;
        switch (width / kLanes) {
            case 4:
                unit_columns<4>(rows, pairs, a, panel, stride, column, take);
                break;
            case 3:
                unit_columns<3>(rows, pairs, a, panel, stride, column, take);
                break;
            case 2:
                unit_columns<2>(rows, pairs, a, panel, stride, column, take);
                break;
            default:
                unit_columns<1>(rows, pairs, a, panel, stride, column, take);
        }
    }
}

}  // namespace lares::LARES_ISA
