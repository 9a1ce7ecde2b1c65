// Copies whole blocks in every plane of the cache: keys and values of each layer.

#include "parallel.h"
#include "vec.h"

extern "C" void copy_blocks(void* kv_cache, const int64_t* source_ids, const int64_t* target_ids,
                            int64_t num_copies, int64_t num_planes, int64_t num_blocks,
                            int64_t block_bytes) {
    char* cache = static_cast<char*>(kv_cache);
    parallel_rows(num_planes * num_copies, block_bytes, [&](int64_t i) {
        const int64_t plane = i / num_copies * num_blocks, copy = i % num_copies;
        memcpy(cache + (plane + target_ids[copy]) * block_bytes,
               cache + (plane + source_ids[copy]) * block_bytes, block_bytes);
    });
}
