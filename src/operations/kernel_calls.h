// SPDX-License-Identifier: Apache-2.0
// The row-wise kernels for tensors of either device: the CPU's with all threads, or the GPU's on the current stream
// (in builds with CUDA). The arguments are those of kernels/; `like` is any tensor of the call.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/alignment_loss/alignment_loss.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "kernels/kl_divergence/kl_divergence.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rotary/rotary.h"
#include "kernels/silu_convolution/silu_convolution.h"
#include "kernels/swiglu/swiglu.h"

namespace amalgam {

/// True if there are kernels for this tensor's device and type (float32 or bfloat16).
bool runs_on_kernels(const at::Tensor& t);

void run(const at::Tensor& like, const kernels::RmsNormForward& call);
void run(const at::Tensor& like, const kernels::RmsNormBackward& call);
void run(const at::Tensor& like, const kernels::GatedRmsNormForward& call);
void run(const at::Tensor& like, const kernels::GatedRmsNormBackward& call);
void run(const at::Tensor& like, const kernels::SwigluForward& call);
void run(const at::Tensor& like, const kernels::SwigluBackward& call);
void run_forward(const at::Tensor& like, const kernels::Rotary& call);
void run_backward(const at::Tensor& like, const kernels::Rotary& call);
void run(const at::Tensor& like, const kernels::SiluConvolutionForward& call);
void run(const at::Tensor& like, const kernels::SiluConvolutionBackward& call);
void run(const at::Tensor& like, const kernels::KlDivergence& call);
void run(const at::Tensor& like, const kernels::KlDivergenceGradient& call);
void run(const at::Tensor& like, const kernels::CrossEntropy& call);
void run(const at::Tensor& like, const kernels::CrossEntropyGradient& call);
void run(const at::Tensor& like, const kernels::AlignmentLoss& call);

}  // namespace amalgam
