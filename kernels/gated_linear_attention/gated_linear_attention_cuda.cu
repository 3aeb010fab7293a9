// SPDX-License-Identifier: Apache-2.0
#include <initializer_list>

#include "kernels/cuda/token_mixer.cuh"
#include "kernels/gated_linear_attention/cuda_call.cuh"
#include "kernels/gated_linear_attention/gated_linear_attention.h"
#include "kernels/require.h"

namespace amalgam::kernels {
namespace {

using namespace linear_attention;

constexpr const char* operation = "gated linear attention on CUDA";

void require(bool condition, const char* problem) {
    kernels::require(condition, operation, problem);
}

template <class View>
void require_aligned(std::initializer_list<View> views) {
    for (const View& view : views)
        require(view.data != nullptr && cuda::alignment_of({view}) == 16,
                "a view is null or its rows do not start at multiples of 16 bytes (the kernels copy 16 bytes at a "
                "time); copy it to aligned rows");
}

ForwardCall make_call(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                      const GatedLinearAttentionInputs& inputs, const void* states) {
    require(cuda::gated_linear_attention_supports(shape, options),
            "this shape or element type has no kernel (bf16 and head dimensions 64 and 128 have); ask "
            "gated_linear_attention_supports first");
    require(options.gate_logit_normalizer > 0, "gate_logit_normalizer is not positive (gates would grow); pass 16");
    require_aligned({inputs.q, inputs.k, inputs.v, inputs.gate});
    require(states != nullptr, "the states are null (both passes use them); pass device memory");
    ForwardCall call{};
    call.time = static_cast<int>(shape.time);
    call.heads = static_cast<int>(shape.heads);
    call.chunks = (call.time + chunk_tokens - 1) / chunk_tokens;
    call.chains = static_cast<int>(shape.batch * shape.heads);
    call.scale = cuda::scale_of(shape, options);
    call.gate_factor = 1.0F / options.gate_logit_normalizer;
    call.q = device_rows(inputs.q);
    call.k = device_rows(inputs.k);
    call.v = device_rows(inputs.v);
    call.gate = device_rows(inputs.gate);
    call.initial_state = inputs.initial_state;
    call.states = static_cast<char*>(const_cast<void*>(states));
    return call;
}

template <int dim>
void run_forward(const ForwardCall& call, cudaStream_t stream) {
    launch_states<dim>(call, stream);
    cuda::check_launch(operation, "states");
    launch_outputs<dim>(call, stream);
    cuda::check_launch(operation, "outputs");
}

template <int dim>
void run_backward(const BackwardCall& call, cudaStream_t stream) {
    launch_state_gradients<dim>(call, stream);
    cuda::check_launch(operation, "state gradients");
    launch_gradients<dim>(call, stream);
    cuda::check_launch(operation, "gradients");
}

}  // namespace

namespace cuda {

bool gated_linear_attention_supports(const GatedLinearAttentionShape& shape,
                                     const GatedLinearAttentionOptions& options) {
    return shape.batch > 0 && shape.time > 0 && shape.heads > 0 && mixer_has_kernels(shape, options);
}

size_t gated_linear_attention_states_bytes(const GatedLinearAttentionShape& shape) {
    const int64_t chunks = (shape.time + chunk_tokens - 1) / chunk_tokens;
    return static_cast<size_t>(shape.batch * shape.heads * chunks * shape.key_dim * shape.value_dim * 2);
}

void gated_linear_attention_forward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                    const GatedLinearAttentionInputs& inputs,
                                    const GatedLinearAttentionOutputs& outputs, void* states, Stream stream) {
    ForwardCall call = make_call(shape, options, inputs, states);
    require(outputs.o != nullptr, "o is null (the output needs a place); pass device memory");
    call.o = {static_cast<__nv_bfloat16*>(outputs.o), shape.heads * shape.value_dim};
    call.final_state = outputs.final_state;
    with_head_dim(shape.key_dim, [&](auto dim) { run_forward<dim>(call, stream); });
}

void gated_linear_attention_decode(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                   const GatedLinearAttentionInputs& inputs, float* state, void* o, Stream stream) {
    require(gated_linear_attention_supports(shape, options),
            "this shape or element type has no kernel (bf16 and head dimensions 64 and 128 have); ask "
            "gated_linear_attention_supports first");
    require(shape.time == 1,
            "decode was given several tokens (it takes one per sequence); use gated_linear_attention_forward");
    require(state != nullptr && o != nullptr, "state or o is null (decode writes both); pass device memory");
    const DecodeCall call{static_cast<int>(shape.heads),
                          cuda::scale_of(shape, options),
                          1.0F / options.gate_logit_normalizer,
                          device_rows(inputs.q),
                          device_rows(inputs.k),
                          device_rows(inputs.v),
                          device_rows(inputs.gate),
                          inputs.slot,
                          state,
                          static_cast<__nv_bfloat16*>(o)};
    with_head_dim(shape.key_dim,
                  [&](auto dim) { launch_decode<dim>(call, static_cast<int>(shape.batch * shape.heads), stream); });
    cuda::check_launch(operation, "decode");
}

void gated_linear_attention_backward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                     const GatedLinearAttentionInputs& inputs, const void* output_gradient,
                                     const float* final_state_gradient, const void* states, void* scratch,
                                     const GatedLinearAttentionGradients& gradients, Stream stream) {
    BackwardCall call{};
    call.forward = make_call(shape, options, inputs, states);
    require(output_gradient != nullptr && scratch != nullptr,
            "the output gradient or the scratch is null (both are needed); pass device memory");
    require_aligned({gradients.q, gradients.k, gradients.v, gradients.gate});
    call.output_gradient = {static_cast<const __nv_bfloat16*>(output_gradient), shape.heads * shape.value_dim};
    call.final_state_gradient = final_state_gradient;
    call.state_gradients = static_cast<char*>(scratch);
    call.q = device_rows(gradients.q);
    call.k = device_rows(gradients.k);
    call.v = device_rows(gradients.v);
    call.gate = device_rows(gradients.gate);
    call.initial_state = gradients.initial_state;
    with_head_dim(shape.key_dim, [&](auto dim) { run_backward<dim>(call, stream); });
}

}  // namespace cuda
}  // namespace amalgam::kernels
