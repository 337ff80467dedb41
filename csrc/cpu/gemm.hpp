// product(rows, columns, depth, A, B, take): take(row, column, vector) of A (rows x depth) B (depth
// x columns), where columns is a multiple of kLanes. The functor takes each finished vector, so
// that bias or accumulation cost no further pass. product<true> multiplies what left_columns and
// right_columns made: sums run along the rows of both.
#pragma once

#if defined(__AMX_BF16__)
#include "gemm_unit.hpp"
#else
#include "gemm_vectors.hpp"
#endif
