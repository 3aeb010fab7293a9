// SPDX-License-Identifier: Apache-2.0
// What the public functions of the gated delta rule and of Kimi Delta Attention share on CPUs: they check what would
// read outside the arrays, choose the variant for this processor and spread sequences and heads over threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels/gated_delta_rule/chunk_kernels.h"
#include "kernels/isa/isa.h"
#include "kernels/require.h"

namespace amalgam::kernels {

inline constexpr int64_t largest_fast_dim = 256;

/// This thread's scratch block of at least `bytes`, kept between calls because fresh pages are slow.
inline std::byte* thread_scratch(size_t bytes) {
    constexpr size_t alignment = 64;
    struct Free {
        void operator()(std::byte* block) const { std::free(block); }
    };
    thread_local std::unique_ptr<std::byte, Free> block;
    thread_local size_t size = 0;
    if (size < bytes) {
        size = 0;
        const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
        block.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
        if (block != nullptr) size = rounded;
    }
    return block.get();
}

/// Runs task(index, scratch) for every sequence and head. Which thread takes which does not matter: nothing is shared.
template <class Kernels, class Task>
void for_every_head(const GatedDeltaRuleShape& shape, int threads, const Kernels& kernels, Task task) {
    const size_t scratch_bytes = kernels.scratch_bytes(shape);
    const int64_t n = sequences_of(shape) * shape.heads;
    const int used = static_cast<int>(std::min<int64_t>(threads, n));
    bool out_of_memory = false;
#pragma omp parallel for schedule(dynamic) num_threads(used) if (used > 1)
    for (int64_t index = 0; index < n; ++index) {
        std::byte* scratch = scratch_bytes == 0 ? nullptr : thread_scratch(scratch_bytes);
        if (scratch_bytes != 0 && scratch == nullptr) {
#pragma omp atomic write
            out_of_memory = true;
            continue;
        }
        task(index, scratch);
    }
    if (out_of_memory) throw std::bad_alloc();
}

/// A rule by its `name` in messages. A token and head have one raw gate, or one for each key channel if
/// `channel_gates`; dt_bias likewise. `variant` gives the kernels of an instruction set, the reference's for any
/// dimensions.
template <class Options>
struct ChunkedRule {
    const char* name;
    bool channel_gates;
    const ChunkKernelsOf<Options>& (*variant)(Isa isa);

    size_t workspace_bytes(const GatedDeltaRuleShape& shape, const Options& options) const {
        check(shape, options);
        return static_cast<size_t>(shape.batch * shape.heads * chunk_slots(shape) * stored_per_chunk(shape)) *
               select_kernels(shape, options).stored_element_bytes;
    }

    void forward(const GatedDeltaRuleShape& shape, const Options& options, const GatedDeltaRuleInputs& inputs,
                 const GatedDeltaRuleOutputs& outputs, void* workspace) const {
        check(shape, options);
        check(shape, inputs);
        require(outputs.o != nullptr, "o is null (the output needs a place); pass the output's data pointer");
        const ForwardCallOf<Options> call{shape, with_scale(shape, options), inputs, outputs,
                                          static_cast<std::byte*>(workspace)};
        const auto& kernels = select_kernels(shape, options);
        for_every_head(shape, options.threads, kernels,
                       [&](int64_t index, std::byte* scratch) { kernels.forward(call, index, scratch); });
    }

    void backward(const GatedDeltaRuleShape& shape, const Options& options, const GatedDeltaRuleInputs& inputs,
                  const void* output_gradient, const float* final_state_gradient, const void* workspace,
                  const GatedDeltaRuleGradients& gradients) const {
        check(shape, options);
        check(shape, inputs);
        check_view(gradients.q.data, gradients.q.stride, shape.heads * shape.key_dim, "the gradient of q");
        check_view(gradients.k.data, gradients.k.stride, shape.heads * shape.key_dim, "the gradient of k");
        check_view(gradients.v.data, gradients.v.stride, shape.heads * shape.value_dim, "the gradient of v");
        check_view(gradients.a.data, gradients.a.stride, shape.heads * gates_of(shape), "the gradient of a");
        check_view(gradients.b.data, gradients.b.stride, shape.heads, "the gradient of b");
        require(gradients.A_log != nullptr && gradients.dt_bias != nullptr,
                "the gradient of A_log or dt_bias is null (both are always written); pass two fp32 buffers");
        require(output_gradient != nullptr, "the output gradient is null (backward starts from it); pass zeros");
        const auto& kernels = select_kernels(shape, options);
        require(kernels.stored_element_bytes == 0 || workspace != nullptr,
                "the workspace is null (backward reads what forward saved); pass the one given to forward");

        const int64_t sequences = sequences_of(shape), chains = sequences * shape.heads;
        std::vector<double> A_log_sums(chains), dt_bias_sums(chains * gates_of(shape));
        const BackwardCallOf<Options> call{
            shape,           with_scale(shape, options), inputs,
            output_gradient, final_state_gradient,       static_cast<const std::byte*>(workspace),
            gradients,       A_log_sums.data(),          dt_bias_sums.data()};
        for_every_head(shape, options.threads, kernels,
                       [&](int64_t index, std::byte* scratch) { kernels.backward(call, index, scratch); });
        const auto add_up = [&](const std::vector<double>& sums, int64_t width, float* gradient) {
            for (int64_t i = 0; i < width; ++i) {
                double sum = 0;
                for (int64_t sequence = 0; sequence < sequences; ++sequence) sum += sums[sequence * width + i];
                gradient[i] = static_cast<float>(sum);
            }
        };
        add_up(A_log_sums, shape.heads, gradients.A_log);
        add_up(dt_bias_sums, shape.heads * gates_of(shape), gradients.dt_bias);
    }

    void decode(const GatedDeltaRuleShape& shape, const Options& options, const GatedDeltaRuleInputs& inputs,
                float* state, void* o) const {
        check(shape, options);
        check(shape, inputs);
        require(shape.time == 1, "decode was given " + std::to_string(shape.time) +
                                     " tokens (it takes one per sequence); use the forward function");
        require(shape.packed == 0, "decode was given packed sequences (each has one token here); pass them as a batch");
        require(state != nullptr && o != nullptr, "state or o is null (decode writes both); pass their data pointers");
        const DecodeCallOf<Options> call{shape, with_scale(shape, options), inputs, state, o};
        const auto& kernels = select_kernels(shape, options);
        for_every_head(shape, options.threads, kernels,
                       [&](int64_t index, std::byte* scratch) { kernels.decode(call, index, scratch); });
    }

  private:
    int64_t gates_of(const GatedDeltaRuleShape& shape) const { return channel_gates ? shape.key_dim : 1; }

    void require(bool condition, const std::string& problem) const { kernels::require(condition, name, problem); }

    void check_view(const void* data, int64_t token_stride, int64_t width, const char* view) const {
        require(data != nullptr, std::string(view) + " is null (every token needs it); pass the tensor's data pointer");
        require(token_stride >= width, std::string(view) + " has token stride " + std::to_string(token_stride) +
                                           " (a token holds " + std::to_string(width) +
                                           " elements); pass the distance between tokens in elements");
    }

    void check(const GatedDeltaRuleShape& shape, const Options& options) const {
        const bool positive =
            shape.batch > 0 && shape.time > 0 && shape.heads > 0 && shape.key_dim > 0 && shape.value_dim > 0;
        require(positive, "a size in the shape is zero or negative (nothing to compute); check the caller's tensors");
        require(shape.packed >= 0 && (shape.packed == 0 || shape.batch == 1),
                "packed sequences lie in one row (batch is " + std::to_string(shape.batch) + "); pass batch 1");
        require(options.threads > 0,
                "threads is " + std::to_string(options.threads) + " (work needs one); pass 1 or more");
    }

    void check(const GatedDeltaRuleShape& shape, const GatedDeltaRuleInputs& inputs) const {
        check_view(inputs.q.data, inputs.q.stride, shape.heads * shape.key_dim, "q");
        check_view(inputs.k.data, inputs.k.stride, shape.heads * shape.key_dim, "k");
        check_view(inputs.v.data, inputs.v.stride, shape.heads * shape.value_dim, "v");
        check_view(inputs.a.data, inputs.a.stride, shape.heads * gates_of(shape), "a");
        check_view(inputs.b.data, inputs.b.stride, shape.heads, "b");
        require(inputs.A_log != nullptr && inputs.dt_bias != nullptr,
                "A_log or dt_bias is null (the gate needs both); pass the fp32 parameters");
        if (shape.packed == 0) return;
        const int64_t* starts = inputs.sequence_starts;
        require(starts != nullptr, "sequence_starts is null (packed sequences need it); pass their first tokens");
        require(
            starts[0] == 0 && starts[shape.packed] == shape.time && std::is_sorted(starts, starts + shape.packed + 1),
            "sequence_starts must rise from 0 to the " + std::to_string(shape.time) + " tokens of the row; check it");
    }

    static Options with_scale(const GatedDeltaRuleShape& shape, Options options) {
        if (options.scale == 0.0F) options.scale = 1.0F / std::sqrt(static_cast<float>(shape.key_dim));
        return options;
    }

    /// The variant that takes this call: the portable one is the reference recurrence, for any dimensions.
    const ChunkKernelsOf<Options>& select_kernels(const GatedDeltaRuleShape& shape, const Options& options) const {
        const auto fast_dim = [](int64_t dim) { return dim % 8 == 0 && dim <= largest_fast_dim; };
        Isa isa = resolve_isa(options.isa);
        if (isa >= Isa::avx512_bf16 && options.element_type != ElementType::bfloat16) isa = Isa::avx512;
        if (!fast_dim(shape.key_dim) || !fast_dim(shape.value_dim)) isa = Isa::reference;
        return variant(isa);
    }
};

}  // namespace amalgam::kernels
