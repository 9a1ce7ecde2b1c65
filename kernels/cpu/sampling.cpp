// Chooses each row's next token: argmax, or Gumbel-max over what min_p, top_k and top_p keep.
//
// Nothing is sorted. top_k and top_p both ask for the heaviest tokens up to a total weight (their
// number, or their probability), and bisecting the bits of the threshold finds exactly those.

#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "parallel.h"
#include "philox.h"
#include "profile.h"
#include "vec.h"

namespace {

constexpr float INFINITE = std::numeric_limits<float>::infinity();

// A value for each token, filled up to whole groups with minus infinity.
using Row = std::vector<float>;

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The largest logit, or NaN if there is one among them.
float largest_or_nan(const float* logits, int64_t vocab_size) {
    Vec maxima = splat(-INFINITE);
    VecI is_nan = {};
    int64_t i = 0;
    for (; i + VEC <= vocab_size; i += VEC) {
        const Vec v = load(logits + i);
        is_nan |= v != v;
        maxima = max(v, maxima);
    }
    float largest = max(maxima);
    bool found_nan = sum(select(is_nan, splat(1.0f), Vec{})) > 0;
    for (; i < vocab_size; ++i) {
        found_nan |= std::isnan(logits[i]);
        largest = std::max(largest, logits[i]);
    }
    return found_nan ? std::numeric_limits<float>::quiet_NaN() : largest;
}

// row = (logits - largest) / temperature: at most zero, and zero for the most probable token.
void scale(const float* logits, int64_t vocab_size, float largest, float temperature, Row& row) {
    row.assign(round_up(vocab_size, GROUP), -INFINITE);
    for_each_vec(vocab_size, [&](int64_t i, auto load, auto store) {
        store(row.data() + i, (load(logits + i) - largest) / temperature);
    });
}

// Sums term(i) for i = 0, VEC, 2 VEC, ... below size, in runs too short for float32 to lose digits.
template <typename Term>
double sum_terms(int64_t size, Term term) {
    constexpr int64_t RUN = 32 * VEC;
    double total = 0;
    for (int64_t start = 0; start < size; start += RUN) {
        Vec run = {};
        for (int64_t i = start; i < std::min(start + RUN, size); i += VEC) run += term(i);
        total += sum(run);
    }
    return total;
}

// The tokens among which top_k or top_p draws its line, in the order of their ids, filled up to
// whole vectors with weight zero.
struct Candidates {
    std::vector<float> values, weights;
    std::vector<int32_t> ids;

    // Takes all tokens of at least `floor`.
    template <typename Weight>
    void collect(const Row& row, float floor, Weight weight) {
        values.resize(row.size());
        ids.resize(row.size());
        size_t count = 0;
        for (size_t i = 0; i < row.size(); i += VEC) {
            if (max(load(&row[i])) < floor) continue;
            for (size_t j = i; j < i + VEC; ++j) {
                // Written in any case, kept if the count moves on: a branch would be guesswork.
                values[count] = row[j];
                ids[count] = j;
                count += row[j] >= floor;
            }
        }
        ids.resize(count);
        values.resize(count);
        values.resize(round_up(count, VEC), -INFINITE);
        weights.assign(values.size(), 0.0f);
        for_each_vec(ids.size(), [&](int64_t i, auto load, auto store) {
            store(&weights[i], weight(load(&values[i])));
        });
    }

    double weight_from(float floor) const {
        return sum_terms(values.size(), [&](int64_t i) {
            return select(load(&values[i]) >= floor, load(&weights[i]), Vec{});
        });
    }

    // The largest value such that the candidates from it up weigh `target` or more.
    float threshold(double target) const {
        // No value is positive, so their bits grow with their magnitude, from those of minus zero.
        uint32_t too_light = bit_cast<uint32_t>(-0.0f) - 1;
        uint32_t heavy_enough = bit_cast<uint32_t>(-INFINITE);
        while (heavy_enough - too_light > 1) {
            const uint32_t middle = too_light + (heavy_enough - too_light) / 2;
            (weight_from(bit_cast<float>(middle)) < target ? too_light : heavy_enough) = middle;
        }
        return bit_cast<float>(heavy_enough);
    }

    // The id of the last of the candidates equal to `value` that it takes to add `missing` weight.
    int32_t last_needed(float value, double missing) const {
        int32_t last = -1;
        for (size_t i = 0; i < ids.size() && missing > 0; ++i) {
            if (values[i] != value) continue;
            missing -= weights[i];
            last = ids[i];
        }
        return last;
    }
};

// Sets the row to minus infinity but for the fewest, largest tokens that together weigh `target` or
// more; among equal ones those with the lowest ids are kept.
void keep_heaviest(Row& row, const Candidates& candidates, double target) {
    const float threshold = candidates.threshold(target);
    const double above = candidates.weight_from(std::nextafter(threshold, INFINITE));
    const int32_t last = candidates.last_needed(threshold, target - above);
    VecI ids;
    for (int i = 0; i < VEC; ++i) ids[i] = i;
    for (size_t i = 0; i < row.size(); i += VEC, ids += VEC) {
        const Vec v = load(&row[i]);
        const VecI is_kept = (v > threshold) | ((v == threshold) & (ids <= last));
        store(&row[i], select(is_kept, v, splat(-INFINITE)));
    }
}

void apply_min_p(Row& row, float log_min_p) {
    for (size_t i = 0; i < row.size(); i += VEC) {
        const Vec v = load(&row[i]);
        store(&row[i], select(v >= splat(log_min_p), v, splat(-INFINITE)));
    }
}

void apply_top_k(Row& row, Candidates& candidates, int64_t k) {
    // k groups have a token as large as the k-th largest maximum of a group: no smaller one counts.
    std::vector<float> maxima;
    for (size_t i = 0; i < row.size(); i += GROUP) {
        maxima.push_back(*std::max_element(&row[i], &row[i] + GROUP));
    }
    float floor = -INFINITE;
    if (k <= static_cast<int64_t>(maxima.size())) {
        std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<>());
        floor = maxima[k - 1];
    }
    candidates.collect(row, floor, [](Vec) { return splat(1.0f); });
    keep_heaviest(row, candidates, k);
}

void apply_top_p(Row& row, Candidates& candidates, double p) {
    const double total = sum_terms(row.size(), [&](int64_t i) { return exp(load(&row[i])); });
    // Tokens below this weigh less than (1 - p) in sum, even if all of them do: no need for them.
    const float floor = std::log((1 - p) * total / row.size()) - 0.01;
    candidates.collect(row, floor, [](Vec values) { return exp(values); });
    keep_heaviest(row, candidates, std::max(p * total, DBL_MIN));
}

Vec group_max(const float* group) {
    return max(max(load(group), load(group + VEC)),
               max(load(group + 2 * VEC), load(group + 3 * VEC)));
}

// The token with the largest sum of value and noise.
int64_t draw(const Row& row, uint64_t seed, uint64_t position) {
    // No noise is larger: that of the smallest word is 33 ln 2.
    constexpr float LARGEST_NOISE = 22.9f;
    float best = -INFINITE;
    int64_t token = 0;
    for (size_t first = 0; first < row.size(); first += GROUP) {
        if (max(group_max(&row[first])) + LARGEST_NOISE < best) continue;
        Vec noise[4];
        gumbel_noise(seed, position, first, noise);
        float scores[GROUP];
        for (int i = 0; i < 4; ++i) store(scores + i * VEC, load(&row[first + i * VEC]) + noise[i]);
        const float largest = max(group_max(scores));
        if (largest > best) {
            best = largest;
            token = first + (std::find(scores, scores + GROUP, largest) - scores);
        }
    }
    return token;
}

}  // namespace

extern "C" void sample(const float* logits, const float* temperature, const int32_t* top_k,
                       const float* top_p, const float* log_min_p, const uint64_t* seeds,
                       const uint64_t* positions, int64_t* tokens, int64_t num_rows, int64_t vocab_size) {
    const profile::Timer timer(profile::Part::SAMPLING);
    parallel_tasks(num_rows, num_rows * vocab_size * 8, [&](int64_t i) {
        const float* row_logits = logits + i * vocab_size;
        const float largest = largest_or_nan(row_logits, vocab_size);
        if (!std::isfinite(largest)) {
            tokens[i] = -1;
            return;
        }
        if (temperature[i] == 0) {
            tokens[i] = std::find(row_logits, row_logits + vocab_size, largest) - row_logits;
            return;
        }
        thread_local Row row;
        thread_local Candidates candidates;
        scale(row_logits, vocab_size, largest, temperature[i], row);
        if (log_min_p[i] > -INFINITE) apply_min_p(row, log_min_p[i]);
        if (0 < top_k[i] && top_k[i] < vocab_size) apply_top_k(row, candidates, top_k[i]);
        if (top_p[i] < 1) apply_top_p(row, candidates, top_p[i]);
        tokens[i] = draw(row, seeds[i], positions[i]);
    });
}
