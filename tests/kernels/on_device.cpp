// SPDX-License-Identifier: Apache-2.0
// The CPU's functions, run on the GPU: operands are copied there and back. Linked in front of the CPU's, so that the
// tests of the kernels test the device's without a change.
#include <gtest/gtest.h>

#include "device_memory.h"
#include "kernels/adamw/adamw.h"
#include "kernels/alignment_loss/alignment_loss.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "kernels/kl_divergence/kl_divergence.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rotary/rotary.h"
#include "kernels/silu_convolution/silu_convolution.h"
#include "kernels/swiglu/swiglu.h"

namespace amalgam::kernels {

using testing::DeviceOperands;

void rms_norm_forward(const RmsNormForward& arguments, int) {
    RmsNormForward a = arguments;
    DeviceOperands operands;
    const std::int64_t width = a.heads * a.width;
    for (ConstRows* rows : {&a.x, &a.residual}) operands.add_rows(*rows, a.tokens, width, a.type);
    for (Rows* rows : {&a.sum, &a.y}) operands.add_rows(*rows, a.tokens, width, a.type);
    operands.add(a.weight, a.width * 4);
    operands.add(a.rstd, a.tokens * a.heads * 4);
    operands.to_device();
    cuda::rms_norm_forward(a, nullptr);
    operands.to_host();
}

void rms_norm_backward(const RmsNormBackward& arguments, int) {
    RmsNormBackward a = arguments;
    DeviceOperands operands;
    const std::int64_t width = a.heads * a.width;
    for (ConstRows* rows : {&a.y_gradient, &a.sum_gradient, &a.x}) operands.add_rows(*rows, a.tokens, width, a.type);
    operands.add_rows(a.x_gradient, a.tokens, width, a.type);
    operands.add(a.weight, a.width * 4);
    operands.add(a.rstd, a.tokens * a.heads * 4);
    operands.add(a.weight_gradient, a.width * 4);
    operands.to_device();
    const DeviceBlock workspace(cuda::rms_norm_backward_workspace(a));
    cuda::rms_norm_backward(a, workspace.data(), nullptr);
    operands.to_host();
}

void gated_rms_norm_forward(const GatedRmsNormForward& arguments, int) {
    GatedRmsNormForward a = arguments;
    DeviceOperands operands;
    const std::int64_t width = a.heads * a.width;
    for (ConstRows* rows : {&a.o, &a.z}) operands.add_rows(*rows, a.tokens, width, a.type);
    operands.add_rows(a.y, a.tokens, width, a.type);
    operands.add(a.weight, a.width * 4);
    operands.add(a.rstd, a.tokens * a.heads * 4);
    operands.to_device();
    cuda::gated_rms_norm_forward(a, nullptr);
    operands.to_host();
}

void gated_rms_norm_backward(const GatedRmsNormBackward& arguments, int) {
    GatedRmsNormBackward a = arguments;
    DeviceOperands operands;
    const std::int64_t width = a.heads * a.width;
    for (ConstRows* rows : {&a.y_gradient, &a.o, &a.z}) operands.add_rows(*rows, a.tokens, width, a.type);
    for (Rows* rows : {&a.o_gradient, &a.z_gradient}) operands.add_rows(*rows, a.tokens, width, a.type);
    operands.add(a.weight, a.width * 4);
    operands.add(a.rstd, a.tokens * a.heads * 4);
    operands.add(a.weight_gradient, a.width * 4);
    operands.to_device();
    const DeviceBlock workspace(cuda::gated_rms_norm_backward_workspace(a));
    cuda::gated_rms_norm_backward(a, workspace.data(), nullptr);
    operands.to_host();
}

void swiglu_forward(const SwigluForward& arguments, int) {
    SwigluForward a = arguments;
    DeviceOperands operands;
    for (ConstRows* rows : {&a.gate, &a.up}) operands.add_rows(*rows, a.tokens, a.width, a.type);
    operands.add_rows(a.y, a.tokens, a.width, a.type);
    operands.to_device();
    cuda::swiglu_forward(a, nullptr);
    operands.to_host();
}

void swiglu_backward(const SwigluBackward& arguments, int) {
    SwigluBackward a = arguments;
    DeviceOperands operands;
    for (ConstRows* rows : {&a.y_gradient, &a.gate, &a.up}) operands.add_rows(*rows, a.tokens, a.width, a.type);
    for (Rows* rows : {&a.gate_gradient, &a.up_gradient}) operands.add_rows(*rows, a.tokens, a.width, a.type);
    operands.to_device();
    cuda::swiglu_backward(a, nullptr);
    operands.to_host();
}

namespace {

void rotary(const Rotary& arguments, void (*function)(const Rotary&, cuda::Stream)) {
    Rotary a = arguments;
    DeviceOperands operands;
    operands.add_rows(a.x, a.tokens, a.heads * a.width, a.type);
    operands.add_rows(a.y, a.tokens, a.heads * a.width, a.type);
    operands.add(a.cos, a.positions * a.width * 4);
    operands.add(a.sin, a.positions * a.width * 4);
    operands.to_device();
    function(a, nullptr);
    operands.to_host();
}

}  // namespace

void rotary_forward(const Rotary& arguments, int) {
    rotary(arguments, cuda::rotary_forward);
}
void rotary_backward(const Rotary& arguments, int) {
    rotary(arguments, cuda::rotary_backward);
}

namespace {

template <class Arguments>
void kl_divergence(const Arguments& arguments, void (*function)(const Arguments&, cuda::Stream)) {
    Arguments a = arguments;
    DeviceOperands operands;
    operands.add_rows(a.student, a.rows, a.vocabulary, a.type);
    operands.add_rows(a.teacher, a.rows, a.vocabulary, a.type);
    operands.add(a.loss, a.rows * 4);
    operands.to_device();
    function(a, nullptr);
    operands.to_host();
}

template <class Arguments>
void cross_entropy(const Arguments& arguments, void (*function)(const Arguments&, cuda::Stream)) {
    Arguments a = arguments;
    DeviceOperands operands;
    operands.add_rows(a.logits, a.rows, a.vocabulary, a.type);
    operands.add(a.targets, a.rows * 8);
    operands.add(a.loss, a.rows * 4);
    operands.add(a.correct, a.rows);
    operands.to_device();
    function(a, nullptr);
    operands.to_host();
}

}  // namespace

void kl_divergence(const KlDivergence& arguments, int) {
    kl_divergence(arguments, cuda::kl_divergence);
}
void kl_divergence_with_gradient(const KlDivergenceGradient& arguments, int) {
    kl_divergence(arguments, cuda::kl_divergence_with_gradient);
}
void cross_entropy(const CrossEntropy& arguments, int) {
    cross_entropy(arguments, cuda::cross_entropy);
}
void cross_entropy_with_gradient(const CrossEntropyGradient& arguments, int) {
    cross_entropy(arguments, cuda::cross_entropy_with_gradient);
}

void alignment_loss(const AlignmentLoss& arguments, int) {
    AlignmentLoss a = arguments;
    DeviceOperands operands;
    for (ConstRows* rows : {&a.student, &a.teacher}) operands.add_rows(*rows, a.rows, a.width, a.type);
    operands.add_rows(a.gradient, a.rows, a.width, a.type);
    operands.add(a.loss, a.rows * 4);
    operands.to_device();
    cuda::alignment_loss(a, nullptr);
    operands.to_host();
}

// Cut into three parameters, the last two of which are not aligned.
void adamw_step(const AdamwStep& arguments, int) {
    AdamwStep a = arguments;
    DeviceOperands operands;
    operands.add(a.gradient, a.count * 4);
    operands.add(a.master, a.count * 4);
    operands.add(a.exp_avg, a.count * 4);
    operands.add(a.exp_avg_sq, a.count * 4);
    operands.add(a.bfloat16_copy, a.count * 2);
    operands.to_device();
    std::vector<cuda::AdamwParameter> parameters;
    const std::int64_t cuts[] = {0, a.count / 2, a.count / 2 + a.count / 3, a.count};
    for (int i = 0; i < 3; ++i) {
        void* copy = a.bfloat16_copy == nullptr ? nullptr : static_cast<unsigned char*>(a.bfloat16_copy) + 2 * cuts[i];
        parameters.push_back({cuts[i + 1] - cuts[i], a.learning_rate, a.gradient + cuts[i], a.master + cuts[i],
                              a.exp_avg + cuts[i], a.exp_avg_sq + cuts[i], copy});
    }
    cuda::adamw_step(a, parameters, {}, nullptr);
    operands.to_host();
}

double sum_of_squares(const float* values, std::int64_t count, int) {
    double result = 0, *to = &result;
    DeviceOperands operands;
    if (count > 0) operands.add(values, count * 4);
    operands.add(to, 8);
    operands.to_device();
    const DeviceBlock workspace(cuda::sum_of_squares_workspace);
    cuda::sum_of_squares(values, count, to, workspace.data(), nullptr);
    operands.to_host();
    return result;
}

void silu_convolution_forward(const SiluConvolutionForward& arguments, int) {
    SiluConvolutionForward a = arguments;
    DeviceOperands operands;
    const std::int64_t states = a.slot != nullptr ? *std::max_element(a.slot, a.slot + a.batch) + 1 : a.batch;
    const std::int64_t state = states * (a.taps - 1) * a.channels * (a.type == ElementType::bfloat16 ? 2 : 4);
    operands.add(a.slot, a.batch * 4);
    operands.add_rows(a.x, a.batch * a.time, a.channels, a.type);
    operands.add_rows(a.y, a.batch * a.time, a.channels, a.type);
    operands.add(a.weight, a.channels * a.taps * 4);
    operands.add(a.initial_state, state);
    operands.add(a.final_state, state);
    operands.to_device();
    cuda::silu_convolution_forward(a, nullptr);
    operands.to_host();
}

void silu_convolution_backward(const SiluConvolutionBackward& arguments, int) {
    SiluConvolutionBackward a = arguments;
    DeviceOperands operands;
    operands.add_rows(a.y_gradient, a.batch * a.time, a.channels, a.type);
    operands.add_rows(a.x, a.batch * a.time, a.channels, a.type);
    operands.add_rows(a.x_gradient, a.batch * a.time, a.channels, a.type);
    operands.add(a.weight, a.channels * a.taps * 4);
    operands.add(a.initial_state, a.batch * (a.taps - 1) * a.channels * (a.type == ElementType::bfloat16 ? 2 : 4));
    operands.add(a.weight_gradient, a.channels * a.taps * 4);
    operands.to_device();
    const DeviceBlock workspace(cuda::silu_convolution_backward_workspace(a));
    cuda::silu_convolution_backward(a, workspace.data(), nullptr);
    operands.to_host();
}

namespace {

/// Elements of a cache up to its last slot in use, and bytes of one.
std::int64_t cached(const CacheShape& s, const std::int32_t* slot) {
    return (*std::max_element(slot, slot + s.batch) + 1) * s.key_value_heads * s.capacity * s.width;
}
std::int64_t size_of(ElementType type) {
    return type == ElementType::bfloat16 ? 2 : 4;
}

}  // namespace

void append_to_cache(const CacheAppend& arguments, int) {
    CacheAppend a = arguments;
    const CacheShape& s = a.shape;
    DeviceOperands operands;
    const std::int64_t cache = cached(s, a.slot) * size_of(a.type);
    operands.add(a.slot, s.batch * 4);
    operands.add(a.length, s.batch * 4);
    operands.add_rows(a.q, s.batch, s.query_heads * s.width, a.type);
    operands.add_rows(a.rotated, s.batch, s.query_heads * s.width, a.type);
    for (ConstRows* rows : {&a.k, &a.v}) operands.add_rows(*rows, s.batch, s.key_value_heads * s.width, a.type);
    for (const float** norm : {&a.q_norm, &a.k_norm}) operands.add(*norm, s.width * 4);
    for (const float** table : {&a.cos, &a.sin}) operands.add(*table, s.capacity * s.width * 4);
    for (void** part : {&a.keys, &a.values}) operands.add(*part, cache);
    operands.to_device();
    cuda::append_to_cache(a, nullptr);
    operands.to_host();
}

void decode_attention(const DecodeAttention& arguments, int) {
    DecodeAttention a = arguments;
    const CacheShape& s = a.shape;
    DeviceOperands operands;
    const std::int64_t cache = cached(s, a.slot) * size_of(a.type);
    operands.add(a.slot, s.batch * 4);
    operands.add(a.length, s.batch * 4);
    operands.add_rows(a.q, s.batch, s.query_heads * s.width, a.type);
    operands.add_rows(a.o, s.batch, s.query_heads * s.width, a.type);
    for (const void** part : {&a.keys, &a.values}) operands.add(*part, cache);
    operands.to_device();
    const DeviceBlock workspace(cuda::decode_attention_workspace(s)), counters(cuda::decode_attention_counters(s));
    check_cuda(cudaMemset(counters.data(), 0, cuda::decode_attention_counters(s)), "cudaMemset");
    for (int i = 0; i < 2; ++i)  // the first call leaves the counters at zero
        cuda::decode_attention(a, workspace.data(), counters.data(), nullptr);
    operands.to_host();
}

}  // namespace amalgam::kernels

namespace {

class DeviceEnvironment : public testing::Environment {
  public:
    void SetUp() override {
        int devices = 0;
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU is visible";
    }
};

[[maybe_unused]] const auto* environment = testing::AddGlobalTestEnvironment(new DeviceEnvironment);

}  // namespace
