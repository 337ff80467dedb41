// The right-hand side of a matrix product, in panels of kPanel columns.
#pragma once

#include "operand.hpp"

namespace lares::LARES_ISA {

// One operand K x N in panels of kPanel columns; the last may be narrower (a multiple of kLanes).
struct Panels {
    const Operand* data;
    ptrdiff_t panel_stride;  // from one panel to the next
    ptrdiff_t row_stride;    // from one row of operands to the next; 0: the panel's own width
    int first_row = 0;       // the product starts at this row of operands
};

// A weight packed panel after panel, depth k each. The product starts at column `first_column`, at
// the start of a panel, and at `first` of the sum.
LARES_INLINE Panels packed_panels(const Operand* data, int k, int first = 0, int first_column = 0) {
    return {data + ptrdiff_t(first_column) * folds(k), ptrdiff_t(folds(k)) * kPanel, 0,
            first / kFold};
}

// A matrix as it lies in memory.
LARES_INLINE Panels panels_of(Left matrix) { return {matrix.data, kPanel, matrix.stride}; }

}  // namespace lares::LARES_ISA
