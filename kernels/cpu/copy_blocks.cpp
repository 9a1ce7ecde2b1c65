// Copies whole blocks, keys and values, in every layer of the cache.

#include "parallel.h"
#include "vec.h"

extern "C" void copy_blocks(void* kv_cache, const int64_t* source_ids, const int64_t* target_ids,
                            int64_t num_copies, int64_t num_layers, int64_t num_blocks,
                            int64_t block_bytes) {
    char* cache = static_cast<char*>(kv_cache);
    parallel_rows(num_layers * num_copies, block_bytes, [&](int64_t i) {
        const int64_t layer = i / num_copies * num_blocks, copy = i % num_copies;
        memcpy(cache + (layer + target_ids[copy]) * block_bytes,
               cache + (layer + source_ids[copy]) * block_bytes, block_bytes);
    });
}
