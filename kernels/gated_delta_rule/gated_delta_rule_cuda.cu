// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "kernels/cuda/token_mixer.cuh"
#include "kernels/gated_delta_rule/chunk_slots.h"
#include "kernels/gated_delta_rule/cuda_call.cuh"
#include "kernels/gated_delta_rule/cuda_copy.cuh"
#include "kernels/gated_delta_rule/gated_delta_rule_cuda.h"
#include "kernels/require.h"

namespace amalgam::kernels {
namespace {

using cuda::alignment_of, cuda::multiprocessors;

constexpr const char* operation = "gated delta rule on CUDA";

void require(bool condition, const std::string& problem) {
    kernels::require(condition, operation, problem);
}

void require_support(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                     const GatedDeltaRuleInputs& inputs) {
    require(cuda::gated_delta_rule_supports(shape, options),
            "this shape or element type has no kernel (bf16 and head dimensions 64 and 128 have); ask "
            "gated_delta_rule_supports first");
    require(shape.packed == 0 || inputs.sequence_starts != nullptr,
            "sequence_starts is null (packed sequences need it); pass their first tokens, in device memory");
}

/// The main kernels read q, k and v after SiLU from aligned rows; otherwise they are first copied.
bool needs_copy(const GatedDeltaRuleOptions& options, const GatedDeltaRuleInputs& inputs) {
    return options.silu || alignment_of({inputs.q, inputs.k, inputs.v}) < 16;
}

/// Where the parts of the workspace lie, in bytes.
struct Layout {
    int64_t chunks, scalars = 0, inverse, states, values, copies, copy_bytes, end;
    Layout(const GatedDeltaRuleShape& shape, bool copied, bool for_backward) {
        chunks = chunk_slots(shape);
        const int64_t tiles = shape.batch * shape.heads * chunks;
        inverse = scalars + tiles * int64_t(sizeof(ChunkScalars));
        states = inverse + tiles * hopper::tile_bytes;
        values = states + (for_backward ? tiles * shape.key_dim * shape.value_dim * 2 : 0);
        copies = values + (for_backward ? tiles * chunk_tokens * shape.value_dim * 2 : 0);
        copy_bytes = shape.batch * shape.time * shape.heads * shape.key_dim * 2;
        end = copies + (copied ? 3 * copy_bytes : 0);
    }
};

/// The same for the scratch of the backward pass.
struct ScratchLayout {
    int64_t state_gradients = 0, error_gradients, sums, end;
    explicit ScratchLayout(const GatedDeltaRuleShape& shape) {
        const int64_t tiles = shape.batch * shape.heads * chunk_slots(shape);
        error_gradients = state_gradients + tiles * shape.key_dim * shape.value_dim * 2;
        sums = error_gradients + tiles * chunk_tokens * shape.value_dim * 2;
        end = sums + tiles * 2 * int64_t(sizeof(float));
    }
};

CudaForwardCall make_call(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                          const GatedDeltaRuleInputs& inputs, void* workspace, bool for_backward) {
    const bool copied = needs_copy(options, inputs);
    const Layout layout(shape, copied, for_backward);
    char* base = static_cast<char*>(workspace);
    CudaForwardCall call{};
    call.time = static_cast<int>(shape.time);
    call.heads = static_cast<int>(shape.heads);
    call.chunks = static_cast<int>(layout.chunks);
    call.chains = static_cast<int>(sequences_of(shape) * shape.heads);
    call.packed = static_cast<int>(shape.packed);
    call.sequence_starts = inputs.sequence_starts;
    call.scale = cuda::scale_of(shape, options);
    call.l2_normalize = options.l2_normalize;
    const auto part = [&](const ConstRows& view, int i) {
        if (!copied) return device_rows(view);
        return DeviceRows{reinterpret_cast<const __nv_bfloat16*>(base + layout.copies + i * layout.copy_bytes),
                          shape.heads * shape.key_dim};
    };
    call.q = part(inputs.q, 0);
    call.k = part(inputs.k, 1);
    call.v = part(inputs.v, 2);
    call.a = device_rows(inputs.a);
    call.b = device_rows(inputs.b);
    call.A_log = inputs.A_log;
    call.dt_bias = inputs.dt_bias;
    call.initial_state = inputs.initial_state;
    call.saved.scalars = reinterpret_cast<ChunkScalars*>(base + layout.scalars);
    call.saved.inverse = reinterpret_cast<uint4*>(base + layout.inverse);
    call.saved.states = for_backward ? base + layout.states : nullptr;
    call.saved.values = for_backward ? base + layout.values : nullptr;
    return call;
}

template <int dim>
void run_forward(const CudaForwardCall& call, const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                 const GatedDeltaRuleInputs& inputs, cudaStream_t stream) {
    if (needs_copy(options, inputs)) {
        copy_rows<3>({device_rows(inputs.q), device_rows(inputs.k), device_rows(inputs.v)}, call.q.data,
                     shape.batch * shape.time, shape.heads * dim, alignment_of({inputs.q, inputs.k, inputs.v}),
                     options.silu, stream);
        cuda::check_launch(operation, "copy");
    }
    launch_prepare<dim>(call, stream);
    cuda::check_launch(operation, "prepare");
    launch_forward<dim>(call, multiprocessors(), stream);
    cuda::check_launch(operation, "forward");
}

template <int dim>
void run_backward(const CudaBackwardCall& call, cudaStream_t stream) {
    launch_backward_states<dim>(call, stream);
    cuda::check_launch(operation, "backward, states");
    launch_backward_chunks<dim>(call, stream);
    cuda::check_launch(operation, "backward, chunks");
}

}  // namespace

namespace cuda {

bool gated_delta_rule_supports(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options) {
    return mixer_has_kernels(shape, options) && (shape.packed == 0 || shape.batch == 1);
}

size_t gated_delta_rule_workspace_bytes(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                                        const GatedDeltaRuleInputs& inputs, bool for_backward) {
    return static_cast<size_t>(Layout(shape, needs_copy(options, inputs), for_backward).end);
}

void gated_delta_rule_forward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                              const GatedDeltaRuleInputs& inputs, const GatedDeltaRuleOutputs& outputs, void* workspace,
                              bool for_backward, Stream stream) {
    require_support(shape, options, inputs);
    require(outputs.o != nullptr && workspace != nullptr,
            "o or the workspace is null (both are written); pass device memory");
    CudaForwardCall call = make_call(shape, options, inputs, workspace, for_backward);
    call.o = {static_cast<__nv_bfloat16*>(outputs.o), shape.heads * shape.value_dim};
    call.final_state = outputs.final_state;
    with_head_dim(shape.key_dim, [&](auto dim) { run_forward<dim>(call, shape, options, inputs, stream); });
}

size_t gated_delta_rule_scratch_bytes(const GatedDeltaRuleShape& shape) {
    return static_cast<size_t>(ScratchLayout(shape).end);
}

void gated_delta_rule_backward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                               const GatedDeltaRuleInputs& inputs, const void* output_gradient,
                               const float* final_state_gradient, const void* workspace, void* scratch,
                               const GatedDeltaRuleGradients& gradients, Stream stream) {
    require_support(shape, options, inputs);
    require(output_gradient != nullptr && workspace != nullptr && scratch != nullptr,
            "the output gradient, the workspace or the scratch is null (all are needed); pass device memory");
    CudaBackwardCall call{};
    call.forward = make_call(shape, options, inputs, const_cast<void*>(workspace), true);
    call.output_gradient = {static_cast<const __nv_bfloat16*>(output_gradient), shape.heads * shape.value_dim};
    call.final_state_gradient = final_state_gradient;
    const ScratchLayout layout(shape);
    char* base = static_cast<char*>(scratch);
    call.state_gradients = base + layout.state_gradients;
    call.error_gradients = base + layout.error_gradients;
    call.sums = reinterpret_cast<float*>(base + layout.sums);
    call.raw_q = device_rows(inputs.q);
    call.raw_k = device_rows(inputs.k);
    call.raw_v = device_rows(inputs.v);
    call.silu = options.silu;
    call.alignment = std::min(alignment_of({gradients.q, gradients.k, gradients.v}),
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

void gated_delta_rule_decode(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                             const GatedDeltaRuleInputs& inputs, float* state, void* o, Stream stream) {
    require_support(shape, options, inputs);
    require(shape.time == 1, "decode was given " + std::to_string(shape.time) +
                                 " tokens (it takes one per sequence); use gated_delta_rule_forward");
    require(shape.packed == 0, "decode was given packed sequences (each has one token here); pass them as a batch");
    require(state != nullptr && o != nullptr, "state or o is null (decode writes both); pass device memory");
    CudaDecodeCall call{};
    call.heads = static_cast<int>(shape.heads);
    call.scale = cuda::scale_of(shape, options);
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
