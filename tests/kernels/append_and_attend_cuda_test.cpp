// SPDX-License-Identifier: Apache-2.0
// Append and attention in one kernel against the two of them, bit for bit.
#include <numeric>

#include "device_memory.h"
#include "kernels/decode_attention/decode_attention.h"
#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Case {
    std::int64_t query_heads, key_value_heads, width, capacity, window;
    std::vector<std::int32_t> length;
};

// New tokens at the ends of tiles and stretches and alone in them; heads that take two blocks of one key head.
const Case cases[] = {{9, 3, 64, 1100, 0, {1099, 0, 63, -1, 1024, 1023, 64}},
                      {12, 2, 128, 300, 0, {15, 16, 17, 299, 31, 128}},
                      {9, 1, 64, 200, 0, {199, 30}},
                      {4, 2, 32, 400, 5, {399, 3, 4, 5, 200}},
                      {8, 1, 96, 300, 0, {299, 100, 1}},
                      {2, 1, 128, 4100, 0, {4099, 2111}},
                      {16, 16, 128, 512, 0, {511, 300, 255, 64}}};

struct Result {
    Matrix o, keys, values;
};

Result run(ElementType type, const Case& c, bool with_norms, bool together) {
    const CacheShape shape{std::int64_t(c.length.size()), c.query_heads, c.key_value_heads, c.width, c.capacity};
    const std::int64_t q_width = c.query_heads * c.width, kv_width = c.key_value_heads * c.width;
    const std::int64_t cached = (shape.batch + 1) * c.key_value_heads * c.capacity;
    const auto random = [&](std::int64_t rows, std::int64_t width, unsigned seed) {
        return Matrix(type, rows, width, random_values(rows * width, seed));
    };
    const Matrix q = random(shape.batch, q_width, 1), k = random(shape.batch, kv_width, 2),
                 v = random(shape.batch, kv_width, 3);
    Result result{Matrix(type, shape.batch, q_width, std::vector<double>(shape.batch * q_width, 0.0)),
                  random(cached, c.width, 4), random(cached, c.width, 5)};
    Matrix rotated(type, shape.batch, q_width);
    std::vector<float> tables, norms;
    for (const double x : random_values(2 * c.capacity * c.width, 6)) tables.push_back(float(x));
    for (const double x : random_values(2 * c.width, 7, 0.2)) norms.push_back(float(1 + x));
    std::vector<std::int32_t> slot(c.length.size());
    std::iota(slot.rbegin(), slot.rend(), 1);
    for (std::size_t i = 0; i < slot.size(); ++i)
        if (c.length[i] < 0) slot[i] = -1;

    CacheAppend append{
        .type = type, .shape = shape, .slot = slot.data(), .length = c.length.data(), .q = q, .k = k, .v = v};
    if (with_norms) append.q_norm = norms.data(), append.k_norm = norms.data() + c.width, append.epsilon = 1e-5F;
    append.cos = tables.data(), append.sin = tables.data() + c.capacity * c.width;
    append.rotated = rotated;
    append.keys = result.keys.data(), append.values = result.values.data();
    DeviceOperands operands;
    const std::int64_t size = type == ElementType::bfloat16 ? 2 : 4;
    operands.add(append.slot, shape.batch * 4);
    operands.add(append.length, shape.batch * 4);
    operands.add_rows(append.q, shape.batch, q_width, type);
    operands.add_rows(append.rotated, shape.batch, q_width, type);
    for (ConstRows* rows : {&append.k, &append.v}) operands.add_rows(*rows, shape.batch, kv_width, type);
    for (const float** norm : {&append.q_norm, &append.k_norm}) operands.add(*norm, c.width * 4);
    for (const float** table : {&append.cos, &append.sin}) operands.add(*table, c.capacity * c.width * 4);
    for (void** part : {&append.keys, &append.values}) operands.add(*part, cached * c.width * size);
    Rows o = result.o;
    operands.add_rows(o, shape.batch, q_width, type);
    operands.to_device();
    const DecodeAttention attention{.type = type,
                                    .shape = shape,
                                    .slot = append.slot,
                                    .length = append.length,
                                    .window = c.window,
                                    .q = append.rotated,
                                    .keys = append.keys,
                                    .values = append.values,
                                    .o = o};
    const DeviceBlock workspace(cuda::decode_attention_workspace(shape)),
        counters(cuda::decode_attention_counters(shape));
    check_cuda(cudaMemset(counters.data(), 0, cuda::decode_attention_counters(shape)), "cudaMemset");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (int i = 0; i < 2; ++i) {  // again, over what the first has left
        if (together) {
            cuda::append_and_attend(append, attention, workspace.data(), counters.data(), nullptr);
        } else {
            cuda::append_to_cache(append, nullptr);
            cuda::decode_attention(attention, workspace.data(), counters.data(), nullptr);
        }
    }
    operands.to_host();
    return result;
}

TEST(AppendAndAttend, gives_the_bits_of_both_apart) {
    for (const ElementType type : both_types)
        for (const Case& c : cases)
            for (const bool with_norms : {false, true}) {
                SCOPED_TRACE(::testing::Message() << "heads " << c.query_heads << " / " << c.key_value_heads
                                                  << " width " << c.width << " type " << static_cast<int>(type));
                const Result together = run(type, c, with_norms, true), apart = run(type, c, with_norms, false);
                EXPECT_TRUE(together.o == apart.o);
                EXPECT_TRUE(together.keys == apart.keys);
                EXPECT_TRUE(together.values == apart.values);
                EXPECT_FALSE(together.o == run(type, c, !with_norms, true).o);
            }
}

}  // namespace
}  // namespace amalgam::kernels::testing
