// SPDX-License-Identifier: Apache-2.0
#pragma once

// Times a delta rule on the GPU: forward (as in inference), forward that saves for a backward pass, backward, and the
// decode step. Prints CSV; medians of repetitions over inputs in different memory, by CUDA events. The floors are the
// bytes that must move (inputs once, outputs once, without anything saved between passes) at the measured speed of a
// copy.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "device_timing.h"
#include "kernels/gated_delta_rule/gated_delta_rule.h"

namespace amalgam::benchmarks {

using namespace amalgam::kernels;

struct Shape {
    int64_t sequences, time, heads, dim;
};

/// First tokens of sequences of `time` tokens each on average, and the end of the last.
inline std::vector<int64_t> rising_starts(int64_t sequences, int64_t time) {
    std::vector<int64_t> starts;
    for (int64_t i = 0; i <= sequences; ++i)
        starts.push_back(i * time / 4 +
                         (sequences > 1 ? 3 * time * i * (i - 1) / (4 * (sequences - 1)) : i * 3 * time / 4));
    return starts;
}

enum class Variant { plain, silu, packed };

/// One fused projection [tokens][q | k | v | a | b], padded to rows of a multiple of 16 bytes, and its gradient. A
/// `Rule` names itself and its functions, and how many gates a token and head have.
template <class Rule>
void time_shape(const Shape& s, Variant variant, double speed) {
    const bool packed = variant == Variant::packed;
    GatedDeltaRuleShape shape{s.sequences, s.time, s.heads, s.dim, s.dim};
    if (packed) shape = {1, s.sequences * s.time, s.heads, s.dim, s.dim, s.sequences};
    typename Rule::Options options;
    options.element_type = ElementType::bfloat16;
    options.silu = variant == Variant::silu;
    const int64_t tokens = s.sequences * s.time, width = s.heads * s.dim, gates = s.heads * Rule::gates(s.dim),
                  stride = (3 * width + gates + s.heads + 7) / 8 * 8;
    const int copies = 3;
    std::vector<uint16_t> host(tokens * stride);
    unsigned random = 1;
    for (uint16_t& x : host) x = random_bf16(random);
    std::vector<std::unique_ptr<Block>> projected, output_gradients;
    for (int i = 0; i < copies; ++i) {
        projected.push_back(std::make_unique<Block>(host.size() * 2));
        output_gradients.push_back(std::make_unique<Block>(tokens * width * 2));
        check(cudaMemcpy(projected[i]->data, host.data(), host.size() * 2, cudaMemcpyHostToDevice), "copy");
        check(cudaMemcpy(output_gradients[i]->data, host.data(), tokens * width * 2, cudaMemcpyHostToDevice), "copy");
    }
    const std::vector<float> A_log_host(s.heads, 0.0F), dt_bias_host(gates, -2.0F);
    const Block A_log(s.heads * 4), dt_bias(gates * 4), d_A_log(s.heads * 4), d_dt_bias(gates * 4);
    cudaMemcpy(A_log.data, A_log_host.data(), s.heads * 4, cudaMemcpyHostToDevice);
    cudaMemcpy(dt_bias.data, dt_bias_host.data(), gates * 4, cudaMemcpyHostToDevice);
    const std::vector<int64_t> starts_host = rising_starts(s.sequences, s.time);
    const Block starts(starts_host.size() * 8);
    cudaMemcpy(starts.data, starts_host.data(), starts_host.size() * 8, cudaMemcpyHostToDevice);
    const Block o(tokens * width * 2), gradient(host.size() * 2);
    const int64_t first[5] = {0, width, 2 * width, 3 * width, 3 * width + gates};
    const auto inputs = [&](int i) {
        const auto view = [&](int part) { return ConstRows{projected[i % copies]->at(2 * first[part]), stride}; };
        return GatedDeltaRuleInputs{
            view(0),          view(1), view(2),
            view(3),          view(4), A_log.floats(),
            dt_bias.floats(), nullptr, packed ? static_cast<const int64_t*>(starts.data) : nullptr};
    };
    const auto written = [&](int part) { return Rows{gradient.at(2 * first[part]), stride}; };
    const GatedDeltaRuleGradients gradients{written(0), written(1),       written(2),         written(3),
                                            written(4), d_A_log.floats(), d_dt_bias.floats(), nullptr};
    const Block workspace(Rule::workspace_bytes(shape, options, inputs(0), true));
    const Block scratch(Rule::scratch_bytes(shape));
    const auto forward = [&](int i, bool for_backward) {
        Rule::forward(shape, options, inputs(i), {o.data, nullptr}, workspace.data, for_backward, nullptr);
    };
    const double inference = median_milliseconds(21, [&](int i) { forward(i, false); });
    const double training = median_milliseconds(21, [&](int i) { forward(i, true); });
    const double backward = median_milliseconds(21, [&](int i) {
        Rule::backward(shape, options, inputs(0), output_gradients[i % copies]->data, nullptr, workspace.data,
                       scratch.data, gradients, nullptr);
    });
    const double both = median_milliseconds(21, [&](int i) {
        forward(i, true);
        Rule::backward(shape, options, inputs(i), output_gradients[i % copies]->data, nullptr, workspace.data,
                       scratch.data, gradients, nullptr);
    });
    const double count = static_cast<double>(tokens * s.heads) / 1e6, row = 2.0 * static_cast<double>(s.dim),
                 gate = 2.0 * static_cast<double>(Rule::gates(s.dim));
    const auto print = [&](const char* what, double time, double bytes) {
        const char* kind = variant == Variant::silu ? " silu" : packed ? " packed" : "";
        std::printf("%s%s%s,%ld,%ld,%ld,%ld,%.4f,%.3f,%.3f\n", Rule::name, what, kind, long(s.sequences), long(s.time),
                    long(s.heads), long(s.dim), time, time / count, bytes / speed);
    };
    print("forward", inference, 4 * row + gate);
    print("forward saving", training, 4 * row + gate);
    print("backward", backward, 7 * row + 2 * gate);
    print("forward and backward", both, 11 * row + 3 * gate);
}

/// 20 steps in a graph, so that the device is timed and not the host's launches.
template <class Rule>
void time_decoding(int64_t sequences, int64_t heads, int64_t dim, double speed) {
    const GatedDeltaRuleShape shape{sequences, 1, heads, dim, dim};
    typename Rule::Options options;
    options.element_type = ElementType::bfloat16;
    const int64_t gate_count = heads * Rule::gates(dim), stride = 3 * heads * dim + gate_count + heads;
    const int copies = 4;
    std::vector<uint16_t> host(sequences * stride);
    unsigned random = 1;
    for (uint16_t& x : host) x = random_bf16(random);
    const Block projected(host.size() * 2), gates(gate_count * 4), o(sequences * heads * dim * 2);
    cudaMemcpy(projected.data, host.data(), host.size() * 2, cudaMemcpyHostToDevice);
    cudaMemset(gates.data, 0, gate_count * 4);
    std::vector<std::unique_ptr<Block>> states;
    const int64_t state_bytes = sequences * heads * dim * dim * 4;
    for (int i = 0; i < copies; ++i) {
        states.push_back(std::make_unique<Block>(state_bytes));
        cudaMemset(states[i]->data, 0, state_bytes);
    }
    const auto view = [&](int64_t column) { return ConstRows{projected.at(2 * column), stride}; };
    const int64_t width = heads * dim;
    const GatedDeltaRuleInputs inputs{
        view(0),        view(width),    view(2 * width), view(3 * width), view(3 * width + gate_count),
        gates.floats(), gates.floats(), nullptr};
    constexpr int steps = 20;
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t graph_exec = nullptr;
    check(cudaStreamCreate(&stream), "stream");
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
    for (int i = 0; i < steps; ++i) Rule::decode(shape, options, inputs, states[i % copies]->floats(), o.data, stream);
    check(cudaStreamEndCapture(stream, &graph), "capture");
    check(cudaGraphInstantiate(&graph_exec, graph, 0), "graph");
    const double time = median_milliseconds(15, [&](int) { cudaGraphLaunch(graph_exec, nullptr); }) / steps;
    cudaGraphExecDestroy(graph_exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    const double count = static_cast<double>(sequences * heads) / 1e6;
    std::printf("%sdecode,%ld,1,%ld,%ld,%.4f,%.3f,%.3f\n", Rule::name, long(sequences), long(heads), long(dim), time,
                time / count, 2.0 * static_cast<double>(state_bytes) / (1e6 * count) / speed);
}

/// One shape from the command line: SEQUENCES TIME HEADS DIM [silu|packed|decode].
template <class Rule>
void time_arguments(int argc, char** argv, double speed) {
    const auto number = [&](int i) { return std::atol(argv[i]); };
    const std::string kind = argc > 5 ? argv[5] : "";
    if (kind == "decode")
        time_decoding<Rule>(number(1), number(3), number(4), speed);
    else
        time_shape<Rule>({number(1), number(2), number(3), number(4)},
                         kind == "silu"     ? Variant::silu
                         : kind == "packed" ? Variant::packed
                                            : Variant::plain,
                         speed);
}

/// The shapes that are timed without arguments.
template <class Rule>
void time_all(double speed) {
    for (const Shape& s : {Shape{8, 1024, 8, 64}, Shape{32, 512, 9, 64}, Shape{4, 2048, 16, 64},
                           Shape{4, 4096, 12, 128}, Shape{96, 512, 12, 128}, Shape{2, 8192, 32, 128}})
        time_shape<Rule>(s, Variant::plain, speed);
    time_shape<Rule>({32, 512, 9, 64}, Variant::silu, speed);
    for (const Shape& s : {Shape{32, 512, 9, 64}, Shape{16, 1024, 12, 128}, Shape{96, 512, 12, 128}})
        time_shape<Rule>(s, Variant::packed, speed);
    for (int64_t dim : {64, 128})
        for (int64_t sequences : {1, 32, 256}) time_decoding<Rule>(sequences, 16, dim, speed);
}

/// Of what is printed.
inline void print_header(double speed) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::printf("# copy: %.0f GB/s read and written\n", speed);
    std::printf("operation,sequences,time,heads,dim,milliseconds,ns_per_token_and_head,floor_ns\n");
}

}  // namespace amalgam::benchmarks
