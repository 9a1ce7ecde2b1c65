// The linear layer of quantized weights, for linear.cpp.
#pragma once

#include "ops.h"

// The product of a weight whose layout is one of the quantized ones; it replaces `out` or is added.
void quantized_product(const PackedWeight& weight, const void* x, void* out, int64_t num_rows,
                       bool adds);
