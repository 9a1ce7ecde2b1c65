// The linear layer of quantized weights, for linear.cpp.
#pragma once

#include "ops.h"

// As `product` of linear.h, for a weight whose layout is one of the quantized ones.
template <typename R>
void quantized_product(const void* x, int64_t num_rows, const R& result);
