// SiLU, the activation of a SwiGLU layer's gate.
#pragma once

#include "vec.h"

inline Vec silu(Vec x) { return x / (1.0f + exp(-x)); }
