// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "kernels/cuda/token_mixer.cuh"
#include "kernels/gated_delta_rule/chunk_slots.h"
#include "kernels/gated_delta_rule/cuda_copy.cuh"
#include "kernels/kimi_delta_attention/cuda_call.cuh"
#include "kernels/kimi_delta_attention/kimi_delta_attention_cuda.h"
#include "kernels/require.h"

namespace amalgam::kernels {
namespace {

using namespace kimi_delta;
using cuda::alignment_of, cuda::multiprocessors;

constexpr const char* operation = "Kimi Delta Attention on CUDA";

void require(bool condition, const std::string& problem) {
    kernels::require(condition, operation, problem);
}

void require_support(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                     const KimiDeltaAttentionInputs& inputs) {
    require(cuda::kimi_delta_attention_supports(shape, options),
            "this shape or element type has no kernel (bf16 and head dimensions 64 and 128 have); ask "
            "kimi_delta_attention_supports first");
    require(options.lower_bound <= 0.0F,
            "lower_bound is positive (log decays are not); pass a negative one, or 0 for none");
    require(shape.packed == 0 || inputs.sequence_starts != nullptr,
            "sequence_starts is null (packed sequences need it); pass their first tokens, in device memory");
}

/// The main kernels read q, k, v and a from aligned rows, the first three after SiLU; otherwise they are first copied.
bool needs_copy(const KimiDeltaAttentionOptions& options, const KimiDeltaAttentionInputs& inputs) {
    return options.silu || alignment_of({inputs.q, inputs.k, inputs.v, inputs.a}) < 16;
}

int64_t tiles_of(const KimiDeltaAttentionShape& shape) {
    return shape.batch * shape.heads * chunk_slots(shape);
}

/// Where the parts of the workspace lie, in bytes.
struct Layout {
    int64_t operands = 0, pairs, decays, numbers, states, values, copies, copy_bytes, end;
    Layout(const KimiDeltaAttentionShape& shape, bool copied, bool for_backward) {
        const int64_t tiles = tiles_of(shape), rows = chunk_tokens * shape.key_dim * 2;
        pairs = operands + tiles * 3 * rows;
        decays = pairs + tiles * 2 * hopper::tile_bytes;
        numbers = decays + tiles * shape.key_dim * int64_t(sizeof(float));
        states = numbers + tiles * int64_t(sizeof(ChunkNumbers));
        values = states + (for_backward ? tiles * shape.key_dim * shape.value_dim * 2 : 0);
        copies = values + (for_backward ? tiles * rows : 0);
        copy_bytes = shape.batch * shape.time * shape.heads * shape.key_dim * 2;
        end = copies + (copied ? 4 * copy_bytes : 0);
    }
};

/// The same for the scratch of the backward pass.
struct ScratchLayout {
    int64_t state_gradients = 0, error_gradients, dt_bias_sums, A_log_sums, end;
    explicit ScratchLayout(const KimiDeltaAttentionShape& shape) {
        const int64_t tiles = tiles_of(shape);
        error_gradients = state_gradients + tiles * shape.key_dim * shape.value_dim * 2;
        dt_bias_sums = error_gradients + tiles * chunk_tokens * shape.value_dim * 2;
        A_log_sums = dt_bias_sums + tiles * shape.key_dim * int64_t(sizeof(float));
        end = A_log_sums + tiles * int64_t(sizeof(float));
    }
};

ForwardCall make_call(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                      const KimiDeltaAttentionInputs& inputs, void* workspace, bool for_backward) {
    const bool copied = needs_copy(options, inputs);
    const Layout layout(shape, copied, for_backward);
    char* base = static_cast<char*>(workspace);
    ForwardCall call{};
    call.time = static_cast<int>(shape.time);
    call.heads = static_cast<int>(shape.heads);
    call.chunks = static_cast<int>(chunk_slots(shape));
    call.chains = static_cast<int>(sequences_of(shape) * shape.heads);
    call.packed = static_cast<int>(shape.packed);
    call.sequence_starts = inputs.sequence_starts;
    call.scale = cuda::scale_of(shape, options);
    call.lower_bound = options.lower_bound;
    call.l2_normalize = options.l2_normalize;
    const auto part = [&](const ConstRows& view, int i) {
        if (!copied) return device_rows(view);
        return DeviceRows{reinterpret_cast<const __nv_bfloat16*>(base + layout.copies + i * layout.copy_bytes),
                          shape.heads * shape.key_dim};
    };
    call.q = part(inputs.q, 0);
    call.k = part(inputs.k, 1);
    call.v = part(inputs.v, 2);
    call.a = part(inputs.a, 3);
    call.b = device_rows(inputs.b);
    call.A_log = inputs.A_log;
    call.dt_bias = inputs.dt_bias;
    call.initial_state = inputs.initial_state;
    call.saved.operands = base + layout.operands;
    call.saved.pairs = base + layout.pairs;
    call.saved.decays = reinterpret_cast<float*>(base + layout.decays);
    call.saved.numbers = reinterpret_cast<ChunkNumbers*>(base + layout.numbers);
    call.saved.states = for_backward ? base + layout.states : nullptr;
    call.saved.values = for_backward ? base + layout.values : nullptr;
    return call;
}

template <int dim>
void run_forward(const ForwardCall& call, const KimiDeltaAttentionShape& shape,
                 const KimiDeltaAttentionOptions& options, const KimiDeltaAttentionInputs& inputs,
                 cudaStream_t stream) {
    if (needs_copy(options, inputs)) {
        copy_rows<4>({device_rows(inputs.q), device_rows(inputs.k), device_rows(inputs.v), device_rows(inputs.a)},
                     call.q.data, shape.batch * shape.time, shape.heads * dim,
                     alignment_of({inputs.q, inputs.k, inputs.v, inputs.a}), options.silu, stream);
        cuda::check_launch(operation, "copy");
    }
    launch_prepare<dim>(call, stream);
    cuda::check_launch(operation, "prepare");
    launch_forward<dim>(call, multiprocessors(), stream);
    cuda::check_launch(operation, "forward");
}

template <int dim>
void run_backward(const BackwardCall& call, cudaStream_t stream) {
    launch_backward_states<dim>(call, stream);
    cuda::check_launch(operation, "backward, states");
    launch_backward_chunks<dim>(call, stream);
    cuda::check_launch(operation, "backward, chunks");
    launch_sum_gates<dim>(call, stream);
    cuda::check_launch(operation, "backward, gates");
}

}  // namespace

namespace cuda {

bool kimi_delta_attention_supports(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options) {
    return mixer_has_kernels(shape, options) && (shape.packed == 0 || shape.batch == 1);
}

size_t kimi_delta_attention_workspace_bytes(const KimiDeltaAttentionShape& shape,
                                            const KimiDeltaAttentionOptions& options,
                                            const KimiDeltaAttentionInputs& inputs, bool for_backward) {
    return static_cast<size_t>(Layout(shape, needs_copy(options, inputs), for_backward).end);
}

void kimi_delta_attention_forward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                  const KimiDeltaAttentionInputs& inputs, const KimiDeltaAttentionOutputs& outputs,
                                  void* workspace, bool for_backward, Stream stream) {
    require_support(shape, options, inputs);
    require(outputs.o != nullptr && workspace != nullptr,
            "o or the workspace is null (both are written); pass device memory");
    ForwardCall call = make_call(shape, options, inputs, workspace, for_backward);
    call.o = {static_cast<__nv_bfloat16*>(outputs.o), shape.heads * shape.value_dim};
    call.final_state = outputs.final_state;
    with_head_dim(shape.key_dim, [&](auto dim) { run_forward<dim>(call, shape, options, inputs, stream); });
}

size_t kimi_delta_attention_scratch_bytes(const KimiDeltaAttentionShape& shape) {
    return static_cast<size_t>(ScratchLayout(shape).end);
}

void kimi_delta_attention_backward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                   const KimiDeltaAttentionInputs& inputs, const void* output_gradient,
                                   const float* final_state_gradient, const void* workspace, void* scratch,
                                   const KimiDeltaAttentionGradients& gradients, Stream stream) {
    require_support(shape, options, inputs);
    require(output_gradient != nullptr && workspace != nullptr && scratch != nullptr,
            "the output gradient, the workspace or the scratch is null (all are needed); pass device memory");
    BackwardCall call{};
    call.forward = make_call(shape, options, inputs, const_cast<void*>(workspace), true);
    call.output_gradient = {static_cast<const __nv_bfloat16*>(output_gradient), shape.heads * shape.value_dim};
    call.final_state_gradient = final_state_gradient;
    const ScratchLayout layout(shape);
    char* base = static_cast<char*>(scratch);
    call.state_gradients = base + layout.state_gradients;
    call.error_gradients = base + layout.error_gradients;
    call.dt_bias_sums = reinterpret_cast<float*>(base + layout.dt_bias_sums);
    call.A_log_sums = reinterpret_cast<float*>(base + layout.A_log_sums);
    call.raw_q = device_rows(inputs.q);
    call.raw_k = device_rows(inputs.k);
    call.raw_v = device_rows(inputs.v);
    call.silu = options.silu;
    call.alignment = std::min(alignment_of({gradients.q, gradients.k, gradients.v, gradients.a}),
                              options.silu ? alignment_of({inputs.q, inputs.k, inputs.v}) : 16);
    call.q = device_rows(gradients.q);
    call.k = device_rows(gradients.k);
    call.v = device_rows(gradients.v);
    call.a = device_rows(gradients.a);
    call.b = device_rows(gradients.b);
    call.A_log = gradients.A_log;
    call.dt_bias = gradients.dt_bias;
    call.initial_state = gradients.initial_state;
    call.multiprocessors = multiprocessors();
    with_head_dim(shape.key_dim, [&](auto dim) { run_backward<dim>(call, stream); });
}

void kimi_delta_attention_decode(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                 const KimiDeltaAttentionInputs& inputs, float* state, void* o, Stream stream) {
    require_support(shape, options, inputs);
    require(shape.time == 1, "decode was given " + std::to_string(shape.time) +
                                 " tokens (it takes one per sequence); use kimi_delta_attention_forward");
    require(shape.packed == 0, "decode was given packed sequences (each has one token here); pass them as a batch");
    require(state != nullptr && o != nullptr, "state or o is null (decode writes both); pass device memory");
    DecodeCall call{};
    call.heads = static_cast<int>(shape.heads);
    call.scale = cuda::scale_of(shape, options);
    call.lower_bound = options.lower_bound;
    call.silu = options.silu;
    call.l2_normalize = options.l2_normalize;
    call.q = device_rows(inputs.q);
    call.k = device_rows(inputs.k);
    call.v = device_rows(inputs.v);
    call.a = device_rows(inputs.a);
    call.b = device_rows(inputs.b);
    call.A_log = inputs.A_log;
    call.dt_bias = inputs.dt_bias;
    call.slot = inputs.slot;
    call.state = state;
    call.o = static_cast<__nv_bfloat16*>(o);
    const int blocks = static_cast<int>(shape.batch * shape.heads);
    with_head_dim(shape.key_dim, [&](auto dim) { launch_decode<dim>(call, blocks, stream); });
    cuda::check_launch(operation, "decode");
}

}  // namespace cuda
}  // namespace amalgam::kernels
