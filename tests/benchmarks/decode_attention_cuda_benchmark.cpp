// SPDX-License-Identifier: Apache-2.0
// Attention of one new token of each of several sequences, bf16, on a GPU: a layer's append and attention, in CUDA
// graphs of 20. Prints CSV: microseconds of the attention alone and with the append, and the share of a copy's speed
// that reading the cache reaches. Inputs rotate through more memory than the caches of the GPU.
//
// usage: decode_attention_cuda_benchmark [BATCH LENGTH QUERY_HEADS KEY_HEADS WIDTH]      default: a list of shapes
#include <array>
#include <cstdlib>
#include <memory>

#include "device_timing.h"
#include "kernels/decode_attention/decode_attention.h"

namespace amalgam::benchmarks {
namespace {

using namespace kernels;

void measure(int64_t batch, int64_t length, int64_t query_heads, int64_t key_heads, int64_t width, double copy) {
    constexpr int launches = 20;
    const CacheShape shape{batch, query_heads, key_heads, width, length + 8};
    const int64_t cache = batch * key_heads * shape.capacity * width;
    const int copies = int(std::clamp<int64_t>((int64_t(1) << 29) / (4 * cache), 1, launches));
    std::vector<std::unique_ptr<Block>> keys, values;
    for (int i = 0; i < copies; ++i) {
        keys.push_back(random_block(cache));
        values.push_back(random_block(cache));
    }
    const int64_t columns = (query_heads + 2 * key_heads) * width;
    const auto projected = random_block(batch * columns), rotated = random_block(batch * query_heads * width),
               mixed = random_block(batch * query_heads * width);
    const auto tables = random_block(2 * shape.capacity * width);
    std::vector<int32_t> slot;
    const std::vector<int32_t> lengths(static_cast<size_t>(batch), static_cast<int32_t>(length));
    for (int64_t i = 0; i < batch; ++i) slot.push_back(int32_t(batch - 1 - i));
    const Block slots(4 * lengths.size()), seen(4 * lengths.size());
    check(cudaMemcpy(slots.data, slot.data(), 4 * lengths.size(), cudaMemcpyHostToDevice), "copy");
    check(cudaMemcpy(seen.data, lengths.data(), 4 * lengths.size(), cudaMemcpyHostToDevice), "copy");
    const Block workspace(size_t(cuda::decode_attention_workspace(shape)) + 16);
    const Block counters(size_t(cuda::decode_attention_counters(shape)));
    check(cudaMemset(counters.data, 0, size_t(cuda::decode_attention_counters(shape))), "memset");

    const auto append_of = [&](int i) {
        CacheAppend a{};
        a.type = ElementType::bfloat16;
        a.shape = shape;
        a.slot = static_cast<const int32_t*>(slots.data);
        a.length = static_cast<const int32_t*>(seen.data);
        a.q = {projected->data, columns};
        a.k = {projected->at(2 * query_heads * width), columns};
        a.v = {projected->at(2 * (query_heads + key_heads) * width), columns};
        a.cos = a.sin = tables->floats();
        a.rotated = {rotated->data, query_heads * width};
        a.keys = keys[size_t(i % copies)]->data;
        a.values = values[size_t(i % copies)]->data;
        return a;
    };
    const auto attention_of = [&](int i) {
        DecodeAttention a{};
        a.type = ElementType::bfloat16;
        a.shape = shape;
        a.slot = static_cast<const int32_t*>(slots.data);
        a.length = static_cast<const int32_t*>(seen.data);
        a.q = {rotated->data, query_heads * width};
        a.keys = keys[size_t(i % copies)]->data;
        a.values = values[size_t(i % copies)]->data;
        a.o = {mixed->data, query_heads * width};
        return a;
    };
    const double alone = graph_microseconds(launches, [&](int i, cudaStream_t stream) {
        cuda::decode_attention(attention_of(i), workspace.data, counters.data, stream);
    });
    const double both = graph_microseconds(launches, [&](int i, cudaStream_t stream) {
        cuda::append_and_attend(append_of(i), attention_of(i), workspace.data, counters.data, stream);
    });
    const double bytes = 4.0 * double(batch * key_heads * (length + 1) * width);
    std::printf("%ld,%ld,%ld,%ld,%ld,%.2f,%.2f,%.3f\n", long(batch), long(length), long(query_heads), long(key_heads),
                long(width), alone, both, bytes / copy / 1e3 / alone);
    std::fflush(stdout);
}

}  // namespace
}  // namespace amalgam::benchmarks

int main(int argc, char** argv) {
    using namespace amalgam::benchmarks;
    const double copy = copy_bytes_per_nanosecond();
    std::printf(
        "# a copy moves %.0f GB/s\nbatch,length,query_heads,key_heads,width,attention_us,with_append_us,share\n", copy);
    if (argc == 6) {
        measure(std::atol(argv[1]), std::atol(argv[2]), std::atol(argv[3]), std::atol(argv[4]), std::atol(argv[5]),
                copy);
        return 0;
    }
    for (const auto& [query_heads, key_heads, width] :
         {std::array<int64_t, 3>{9, 3, 64}, {12, 2, 128}, {32, 8, 128}, {28, 4, 128}})
        for (const auto& [batch, length] :
             {std::array<int64_t, 2>{1, 1000}, {1, 16000}, {16, 1000}, {16, 4000}, {64, 1000}, {64, 4000}})
            measure(batch, length, query_heads, key_heads, width, copy);
    return 0;
}
