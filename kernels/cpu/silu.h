// SiLU, the activation of a SwiGLU layer's gate, for results of type T.
#pragma once

#include <type_traits>

#include "vec.h"

template <typename T>
Vec silu(Vec x) {
    if constexpr (std::is_same_v<T, float>) {
        return x / (1.0f + exp(-x));
    } else {
        // Further down the result is as good as zero, and the power of two is not defined.
        x = max(splat(-87.0f), x);
        return x / (1.0f + exp2_coarse(x * -1.44269504088896341f));
    }
}
