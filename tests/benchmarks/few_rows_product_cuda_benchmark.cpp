// SPDX-License-Identifier: Apache-2.0
// The products of a layer in a step of generation, bf16, on a GPU, with what stands around them, in CUDA graphs. Prints
// CSV: microseconds, and the share of a copy's speed that reading the weights reaches. Weights rotate through more
// memory than the caches of the GPU.
//
// usage: few_rows_product_cuda_benchmark [ROWS ...]      default: 1 16
#include <algorithm>
#include <cstdlib>

#include "device_timing.h"
#include "kernels/few_rows_product/few_rows_product.h"

namespace amalgam::benchmarks {
namespace {

using namespace kernels;

struct Product {
    const char *model, *name;
    int64_t in, out;
    bool norm, gated, residual;
};

constexpr Product products[] = {{"smollm2-135m", "qkv", 576, 960, true, false, false},
                                {"smollm2-135m", "o", 576, 576, false, false, true},
                                {"smollm2-135m", "gate_up", 576, 3072, true, true, false},
                                {"smollm2-135m", "down", 1536, 576, false, false, true},
                                {"qwen2.5-1.5b", "qkv", 1536, 2048, true, false, false},
                                {"qwen2.5-1.5b", "o", 1536, 1536, false, false, true},
                                {"qwen2.5-1.5b", "gate_up", 1536, 17920, true, true, false},
                                {"qwen2.5-1.5b", "down", 8960, 1536, false, false, true},
                                {"qwen2.5-1.5b", "head", 1536, 151936, false, false, false}};

void measure(const Product& product, int64_t rows, double copy) {
    const int64_t weights = product.in * product.out, width = product.gated ? product.out / 2 : product.out;
    const int copies = int(std::clamp<int64_t>((int64_t(1) << 28) / (2 * weights), 2, 40));
    const auto x = random_block(rows * product.in), weight = random_block(copies * weights),
               residual = random_block(rows * width), y = random_block(rows * width);
    const std::vector<float> ones(size_t(product.in), 1.0F);
    const Block norm(4 * ones.size());
    check(cudaMemcpy(norm.data, ones.data(), 4 * ones.size(), cudaMemcpyHostToDevice), "copy");
    FewRowsProduct call{};
    call.type = ElementType::bfloat16;
    call.rows = rows;
    call.in = product.in;
    call.out = product.out;
    call.x = {x->data, product.in};
    call.weight = {weight->data, product.in};
    call.y = {y->data, width};
    cuda::AroundProduct around{};
    if (product.norm) around.norm = norm.floats();
    around.gated = product.gated;
    if (product.residual) around.residual = {residual->data, width};
    if (!cuda::few_rows_product_supports(call, around)) return;
    const double time = graph_microseconds(copies, [&](int i, cudaStream_t stream) {
        call.weight.data = weight->at(2 * weights * (i % copies));
        cuda::few_rows_product(call, around, stream);
    });
    std::printf("%s,%s,%ld,%.2f,%.3f\n", product.model, product.name, long(rows), time,
                2.0 * double(weights) / copy / 1e3 / time);
    std::fflush(stdout);
}

}  // namespace
}  // namespace amalgam::benchmarks

int main(int argc, char** argv) {
    using namespace amalgam::benchmarks;
    const double copy = copy_bytes_per_nanosecond();
    std::printf("# a copy moves %.0f GB/s\nmodel,product,rows,us,share\n", copy);
    std::vector<int64_t> rows = {1, 16};
    if (argc > 1) rows.clear();
    for (int i = 1; i < argc; ++i) rows.push_back(std::atol(argv[i]));
    for (const int64_t count : rows)
        for (const Product& product : products) measure(product, count, copy);
    return 0;
}
