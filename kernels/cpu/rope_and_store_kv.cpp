// Rotary embedding of queries and keys, and the write of keys and values into their pages.

#include "kv_layout.h"
#include "ops.h"
#include "parallel.h"
#include "profile.h"
#include "quantize_head.h"

namespace {

constexpr int64_t MAX_HEAD_DIM = 256;

// A token takes so many times as long as elementwise work: each few bytes of it go to a line of their own.
constexpr int64_t TIMES_ELEMENTWISE = 4;

// Rotates a head from source to target, which may be the same.
template <typename T>
void rotate(const T* source, T* target, const float* cos_sin, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for_each_vec(half, [&](int64_t i, auto load, auto store) {
        const Vec cos = load(cos_sin + i), sin = load(cos_sin + half + i);
        const Vec a = load(source + i), b = load(source + half + i);
        store(target + i, fma(a, cos, b * -sin));
        store(target + half + i, fma(b, cos, a * sin));
    });
}

// Rotates a key into its lane of a page, where units of neighbouring dimensions lie apart.
template <typename U>
void store_key(const typename U::Element* key, typename U::Unit* lane, const float* cos_sin,
               const KvLayout<U>& layout) {
    using Element = typename U::Element;
    alignas(64) typename U::Unit units[MAX_HEAD_DIM];
    if constexpr (HAS_SCALES<U>) {
        alignas(64) Element rotated[MAX_HEAD_DIM];
        rotate(key, rotated, cos_sin, layout.head_dim);
        const float scale =
            quantize_head(rotated, layout.head_dim, reinterpret_cast<int8_t*>(units));
        lane[layout.scales()] = bit_cast<uint32_t>(scale);
        for (int64_t unit = 0; unit < layout.dim_units(); ++unit) units[unit] ^= 0x80808080;
    } else {
        rotate(key, reinterpret_cast<Element*>(units), cos_sin, layout.head_dim);
    }
    for (int64_t unit = 0; unit < layout.dim_units(); ++unit) {
        lane[unit * layout.key_stride()] = units[unit];
    }
}

// Asks for the lines of a lane to be written, all at once: most of a new token's nobody has read lately,
// and each holds but a few bytes of it.
template <typename U>
void fetch_lane(const typename U::Unit* page, int64_t lane, const KvLayout<U>& layout) {
    constexpr int64_t LINE_UNITS = 64 / sizeof(typename U::Unit);
    for (int64_t unit = 0; unit < layout.dim_units(); ++unit) {
        __builtin_prefetch(page + lane + unit * layout.key_stride(), 1);
    }
    if constexpr (HAS_SCALES<U>) {
        __builtin_prefetch(page + lane + layout.scales(), 1);
        __builtin_prefetch(page + lane + layout.page_units() + layout.scales(), 1);
    }
    const auto* values = page + layout.page_units() + lane / U::PER_UNIT * layout.value_stride();
    for (int64_t unit = 0; unit < layout.value_stride(); unit += LINE_UNITS) {
        __builtin_prefetch(values + unit, 1);
    }
}

// The slots of a step's tokens, and what the tokens beside them in their units are.
struct Slots {
    const int64_t* slots;
    int64_t num_tokens, block_size;

    int64_t block(int64_t token) const { return slots[token] / block_size; }
    int64_t lane(int64_t token) const { return slots[token] % block_size; }
    bool is_second(int64_t token) const { return lane(token) % 2; }
    // The first and the second token of a unit of two, both in this step.
    bool is_pair(int64_t first) const {
        return first >= 0 && first + 1 < num_tokens && !is_second(first) &&
               block(first) == block(first + 1) && lane(first) + 1 == lane(first + 1);
    }
};

void copy_value(const float* values, const Slots&, int64_t, int64_t, float* row, int64_t dim) {
    memcpy(row, values, dim * sizeof *row);
}

// Neighbouring tokens share units. Where they are neighbours in the step, too, the first one writes
// whole units; else each writes its halves, which another thread's leave alone.
void copy_value(const BFloat16* values, const Slots& slots, int64_t token, int64_t stride,
                uint32_t* row, int64_t dim) {
    if (slots.is_pair(token)) {
        const BFloat16* next = values + stride;
        for (int64_t i = 0; i < dim; ++i) {
            row[i] = values[i].bits | uint32_t(next[i].bits) << 16;
        }
    } else if (!slots.is_second(token) || !slots.is_pair(token - 1)) {
        auto* half = reinterpret_cast<BFloat16*>(row) + slots.is_second(token);
        for (int64_t i = 0; i < dim; ++i) half[2 * i] = values[i];
    }
}

// Puts a value into its lane of a page. As bytes each token writes its own, which leaves alone those of
// another thread in the same unit.
template <typename U>
void store_value(const typename U::Element* values, const Slots& slots, int64_t token,
                 int64_t stride, typename U::Unit* page, const KvLayout<U>& layout) {
    const int64_t lane = slots.lane(token), dim = layout.head_dim;
    auto* row = page + lane / U::PER_UNIT * layout.value_stride();
    if constexpr (HAS_SCALES<U>) {
        alignas(64) int8_t bytes[MAX_HEAD_DIM];
        page[layout.scales() + lane] = bit_cast<uint32_t>(quantize_head(values, dim, bytes));
        auto* own = reinterpret_cast<int8_t*>(row) + lane % U::PER_UNIT;
        for (int64_t i = 0; i < dim; ++i) own[U::PER_UNIT * i] = bytes[i];
    } else {
        copy_value(values, slots, token, stride, row, dim);
    }
}

}  // namespace

extern "C" void rope_and_store_kv(void* q, const void* k, const void* v, const float* cos_sin,
                                  const int64_t* positions, void* pages,
                                  const int64_t* slot_mapping, int64_t num_tokens,
                                  int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                  int64_t block_size, int64_t q_stride, int64_t k_stride,
                                  int64_t v_stride, int32_t dtype, int32_t cache_dtype) {
    const profile::Timer timer(profile::Part::ROPE_AND_KV_WRITE);
    const int64_t row_size = (num_heads + 2 * num_kv_heads) * head_dim;
    const Slots slots = {slot_mapping, num_tokens, block_size};
    with_kv_unit(dtype, cache_dtype, [&](auto unit) {
        using U = decltype(unit);
        using Unit = typename U::Unit;
        using Element = typename U::Element;
        const KvLayout<U> layout = {num_kv_heads, head_dim, block_size};
        parallel_rows(num_tokens, TIMES_ELEMENTWISE * row_size, [&](int64_t token) {
            const int64_t next = std::min(token + 1, num_tokens - 1);
            if (slots.block(next) != slots.block(token)) {
                for (int64_t head = 0; head < num_kv_heads; ++head) {
                    fetch_lane<U>(
                        static_cast<Unit*>(pages) + layout.keys(slots.block(next), head),
                        slots.lane(next), layout);
                }
            }
            const float* angles = cos_sin + positions[token] * head_dim;
            Element* queries = static_cast<Element*>(q) + token * q_stride;
            for (int64_t head = 0; head < num_heads; ++head) {
                rotate(queries + head * head_dim, queries + head * head_dim, angles, head_dim);
            }
            const Element* keys = static_cast<const Element*>(k) + token * k_stride;
            const Element* values = static_cast<const Element*>(v) + token * v_stride;
            const int64_t lane = slots.lane(token);
            for (int64_t head = 0; head < num_kv_heads; ++head) {
                Unit* page = static_cast<Unit*>(pages) + layout.keys(slots.block(token), head);
                store_key<U>(keys + head * head_dim, page + lane, angles, layout);
                store_value<U>(values + head * head_dim, slots, token, v_stride,
                               page + layout.page_units(), layout);
            }
        });
    });
}
