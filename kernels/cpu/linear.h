// Products with a packed weight, for what is made of their sums; see linear.cpp.
#pragma once

#include "ops.h"

// Multiplies num_rows rows by result.weight; `result` stores the sums, piece by piece (see panels.h).
template <typename R>
void product(const void* x, int64_t num_rows, const R& result);
