// How quantized weights lie in memory, and the sums of products of bytes.
//
// A weight lies in panels of output features, like that of linear.cpp, a panel in groups of k. A group
// holds its units (see tile.h), four neighbours in bytes each, and what its numbers stand for.
//
// Weights are the unsigned factor, so that 4-bit numbers need no more than to be taken apart. Signed
// bytes are stored 128 higher; sums begin with the activations' offset, which takes that out again.
#pragma once

#include "bytes.h"
#include "panels.h"
#include "quantize_rows.h"

// Whether products of bytes are added by one instruction.
#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__))
constexpr bool MULTIPLIES_BYTES = true;
#else
constexpr bool MULTIPLIES_BYTES = false;
#endif

// One signed byte for each weight, one scale for each output feature: float32, after its panel.
struct Int8Weight {
    static constexpr int GROUP = 64;
    static constexpr int UNITS = GROUP / 4;
    static constexpr int64_t GROUP_BYTES = GROUP * PANEL;
    static constexpr int64_t PANEL_END_BYTES = PANEL * sizeof(float);
    using X = QuantizedGroup<GROUP>;

    static VecU unit(const uint8_t* group, int unit, int v) {
        return load_bits<VecU>(group + (unit * PANEL + v * VEC) * 4);
    }
    static int32_t first_sum(const X& x) { return x.offset; }

    struct Scales {
        explicit Scales(const uint8_t*, int) {}
        Vec add(Vec sum, Vec products, const X& x) const {
            return fma(products, splat(x.scale), sum);
        }
    };
    static Vec finish(Vec sum, const uint8_t* panel_end, int64_t i) {
        return sum * load(reinterpret_cast<const float*>(panel_end) + i);
    }
};

// What weights with scales for groups of 32 have in common; these are float16, after their group.
struct GroupedWeight {
    static constexpr int GROUP = 32;
    static constexpr int UNITS = GROUP / 4;
    static constexpr int64_t PANEL_END_BYTES = 0;
    using X = QuantizedGroup<GROUP>;

    static Vec finish(Vec sum, const uint8_t*, int64_t) { return sum; }
};

// scale * a signed byte, as in GGUF's Q8_0.
struct Q8Weight : GroupedWeight {
    static constexpr int64_t UNITS_BYTES = GROUP * PANEL;
    static constexpr int64_t GROUP_BYTES = UNITS_BYTES + 2 * PANEL;

    static VecU unit(const uint8_t* group, int unit, int v) { return Int8Weight::unit(group, unit, v); }
    static int32_t first_sum(const X& x) { return x.offset; }

    struct Scales {
        Vec scale;
        explicit Scales(const uint8_t* group, int v)
            : scale(load(reinterpret_cast<const Float16*>(group + UNITS_BYTES) + v * VEC)) {}
        Vec add(Vec sum, Vec products, const X& x) const {
            return fma(products * scale, splat(x.scale), sum);
        }
    };
};

// scale * q + smallest with q in 0 to 15, as in GGUF's Q4_1. Units 0 to 3 are the lower halves of the
// bytes, units 4 to 7 the upper ones.
struct Q4Weight : GroupedWeight {
    static constexpr int64_t UNITS_BYTES = GROUP * PANEL / 2;
    static constexpr int64_t GROUP_BYTES = UNITS_BYTES + 4 * PANEL;

    static VecU unit(const uint8_t* group, int unit, int v) {
        const VecU both = load_bits<VecU>(group + (unit % 4 * PANEL + v * VEC) * 4);
        return (unit < 4 ? both : both >> 4) & 0x0f0f0f0f;
    }
    static int32_t first_sum(const X&) { return 0; }

    struct Scales {
        Vec scale, smallest;
        explicit Scales(const uint8_t* group, int v) {
            const auto* scales = reinterpret_cast<const Float16*>(group + UNITS_BYTES) + v * VEC;
            scale = load(scales);
            smallest = load(scales + PANEL);
        }
        Vec add(Vec sum, Vec products, const X& x) const {
            return fma(smallest, splat(x.sum), fma(products * scale, splat(x.scale), sum));
        }
    };
};
