// SPDX-License-Identifier: Apache-2.0
#include "operations/kernel_calls.h"

#include <ATen/ATen.h>

#include "operations/kernel_views.h"
#ifdef AMALGAM_CUDA
#include "operations/cuda_resources.h"
#endif

namespace amalgam {

#ifdef AMALGAM_CUDA
#define AMALGAM_RUN(function)                                                  \
    if (like.is_cuda()) return kernels::cuda::function(call, stream_of(like)); \
    kernels::function(call, kernel_threads())
#define AMALGAM_RUN_WITH_WORKSPACE(function)                                                        \
    if (like.is_cuda()) {                                                                           \
        const at::Tensor workspace = device_bytes(like, kernels::cuda::function##_workspace(call)); \
        return kernels::cuda::function(call, workspace.data_ptr(), stream_of(like));                \
    }                                                                                               \
    kernels::function(call, kernel_threads())
#else
#define AMALGAM_RUN(function) \
    (void)like;               \
    kernels::function(call, kernel_threads())
#define AMALGAM_RUN_WITH_WORKSPACE AMALGAM_RUN
#endif

bool runs_on_kernels(const at::Tensor& t) {
#ifdef AMALGAM_CUDA
    if (t.is_cuda()) return t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16;
#endif
    return runs_on_cpu_kernels(t);
}

void run(const at::Tensor& like, const kernels::RmsNormForward& call) {
    AMALGAM_RUN(rms_norm_forward);
}
void run(const at::Tensor& like, const kernels::RmsNormBackward& call) {
    AMALGAM_RUN_WITH_WORKSPACE(rms_norm_backward);
}
void run(const at::Tensor& like, const kernels::GatedRmsNormForward& call) {
    AMALGAM_RUN(gated_rms_norm_forward);
}
void run(const at::Tensor& like, const kernels::GatedRmsNormBackward& call) {
    AMALGAM_RUN_WITH_WORKSPACE(gated_rms_norm_backward);
}
void run(const at::Tensor& like, const kernels::SwigluForward& call) {
    AMALGAM_RUN(swiglu_forward);
}
void run(const at::Tensor& like, const kernels::SwigluBackward& call) {
    AMALGAM_RUN(swiglu_backward);
}
void run_forward(const at::Tensor& like, const kernels::Rotary& call) {
    AMALGAM_RUN(rotary_forward);
}
void run_backward(const at::Tensor& like, const kernels::Rotary& call) {
    AMALGAM_RUN(rotary_backward);
}
void run(const at::Tensor& like, const kernels::SiluConvolutionForward& call) {
    AMALGAM_RUN(silu_convolution_forward);
}
void run(const at::Tensor& like, const kernels::SiluConvolutionBackward& call) {
    AMALGAM_RUN_WITH_WORKSPACE(silu_convolution_backward);
}
void run(const at::Tensor& like, const kernels::KlDivergence& call) {
    AMALGAM_RUN(kl_divergence);
}
void run(const at::Tensor& like, const kernels::KlDivergenceGradient& call) {
    AMALGAM_RUN(kl_divergence_with_gradient);
}
void run(const at::Tensor& like, const kernels::CrossEntropy& call) {
    AMALGAM_RUN(cross_entropy);
}
void run(const at::Tensor& like, const kernels::CrossEntropyGradient& call) {
    AMALGAM_RUN(cross_entropy_with_gradient);
}

void run(const at::Tensor& like, const kernels::AlignmentLoss& call) {
    AMALGAM_RUN(alignment_loss);
}

}  // namespace amalgam
