// SPDX-License-Identifier: Apache-2.0
// Times gated linear attention on the GPU: forward, backward, and both. Prints CSV; medians of repetitions over inputs
// in different memory, by CUDA events. The floors are the bytes that must move (inputs once, outputs once, without
// anything saved between passes) at the measured speed of a copy.
//
// usage: gated_linear_attention_cuda_benchmark [SEQUENCES TIME HEADS DIM]      default: a list of shapes

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "device_timing.h"
#include "kernels/gated_linear_attention/gated_linear_attention.h"

namespace {

using namespace amalgam::kernels;
using namespace amalgam::benchmarks;

void time_shape(const GatedLinearAttentionShape& shape, double speed) {
    const int64_t tokens = shape.batch * shape.time, width = shape.heads * shape.key_dim;
    GatedLinearAttentionOptions options;
    options.element_type = ElementType::bfloat16;
    const int copies = 3;
    std::vector<uint16_t> host(tokens * 4 * width);  // rows of q | k | v | gate
    unsigned random = 1;
    for (uint16_t& x : host) x = random_bf16(random);
    std::vector<std::unique_ptr<Block>> inputs, output_gradients;
    for (int i = 0; i < copies; ++i) {
        inputs.push_back(std::make_unique<Block>(host.size() * 2));
        output_gradients.push_back(std::make_unique<Block>(tokens * width * 2));
        check(cudaMemcpy(inputs[i]->data, host.data(), host.size() * 2, cudaMemcpyHostToDevice), "copy");
        check(cudaMemcpy(output_gradients[i]->data, host.data(), tokens * width * 2, cudaMemcpyHostToDevice), "copy");
    }
    const Block o(tokens * width * 2), gradient(host.size() * 2);
    const Block states(cuda::gated_linear_attention_states_bytes(shape));
    const Block scratch(cuda::gated_linear_attention_states_bytes(shape));
    const auto arguments = [&](int i) {
        const auto view = [&](int part) { return ConstRows{inputs[i % copies]->at(2 * part * width), 4 * width}; };
        return GatedLinearAttentionInputs{view(0), view(1), view(2), view(3), nullptr};
    };
    const auto written = [&](int part) { return Rows{gradient.at(2 * part * width), 4 * width}; };
    const GatedLinearAttentionGradients gradients{written(0), written(1), written(2), written(3), nullptr};
    const auto forward = [&](int i) {
        cuda::gated_linear_attention_forward(shape, options, arguments(i), {o.data, nullptr}, states.data, nullptr);
    };
    const auto backward = [&](int i, int inputs_at) {
        cuda::gated_linear_attention_backward(shape, options, arguments(inputs_at), output_gradients[i % copies]->data,
                                              nullptr, states.data, scratch.data, gradients, nullptr);
    };
    const double forward_time = median_milliseconds(21, forward);
    forward(0);
    const double backward_time = median_milliseconds(21, [&](int i) { backward(i, 0); });
    const double both = median_milliseconds(21, [&](int i) {
        forward(i);
        backward(i, i);
    });
    const double count = static_cast<double>(tokens * shape.heads) / 1e6,
                 row = 2.0 * static_cast<double>(shape.key_dim);
    const auto print = [&](const char* what, double time, double bytes) {
        std::printf("%s,%ld,%ld,%ld,%ld,%.4f,%.3f,%.3f\n", what, long(shape.batch), long(shape.time), long(shape.heads),
                    long(shape.key_dim), time, time / count, bytes / speed);
    };
    print("forward", forward_time, 5 * row);
    print("backward", backward_time, 9 * row);
    print("forward and backward", both, 14 * row);
}

}  // namespace

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    const double speed = copy_bytes_per_nanosecond();
    std::printf("# copy: %.0f GB/s read and written\n", speed);
    std::printf("operation,sequences,time,heads,dim,milliseconds,ns_per_token_and_head,floor_ns\n");
    const auto time_dims = [&](int64_t batch, int64_t time, int64_t heads, int64_t dim) {
        time_shape({batch, time, heads, dim, dim}, speed);
    };
    if (argc > 4) {
        time_dims(std::atol(argv[1]), std::atol(argv[2]), std::atol(argv[3]), std::atol(argv[4]));
        return 0;
    }
    time_dims(8, 1024, 8, 64);
    time_dims(32, 512, 9, 64);
    time_dims(4, 4096, 12, 128);
    time_dims(96, 512, 12, 128);
    time_dims(2, 8192, 32, 128);
    return 0;
}
