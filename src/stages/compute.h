// SPDX-License-Identifier: Apache-2.0
// What a rank computes with: device, compute type, threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "comm/communicator.h"
#include "job/job.h"

namespace amalgam {

struct Compute {
    at::Device device = at::kCPU;
    at::ScalarType type = at::kFloat;
    int threads = 1;
    double peak_flops = 0.0;  // of this rank's device in `type`; 0: not asked for
    std::string description;  // "CPU, bfloat16, 2 threads"
    std::string warning;      // of a choice that costs time; empty: none
};

/// Whether `device` means a GPU here. Throws Error(bad_input), naming `option`, if it asks for what is not there.
bool asks_for_cuda(const std::string& option, DeviceChoice device);

/// Name of the first visible GPU; empty if there is none, or if this build has no CUDA.
std::string visible_gpu();

/// The type of weights and activations, on a GPU or not. auto: bfloat16 where the device multiplies it.
at::ScalarType compute_type(ComputePrecision precision, bool cuda);

/// flop/s of products in `type`: a GPU's in bfloat16 as its data sheet has it, anything else measured with all threads
/// of this rank.
double device_peak(at::Device device, at::ScalarType type);

/// What people should know who ask by name for bfloat16 on a CPU without instructions for it: both speeds, flop/s, as
/// they were measured.
std::string widened_note(double bfloat16_speed, double float32_speed);

/// How GPUs multiply fp32 matrices: exactly in fp32 models, in TF32 in bf16 models, whose fp32 intermediates (the gated
/// delta rule) come from bf16 numbers anyway.
void set_product_precision(at::ScalarType type);

/// Chooses from the job and the machine, sets LibTorch's threads and determinism, binds the GPU of the node-local rank.
/// `node`: the ranks of this rank's node. Collective over `world`: all ranks compute in one type. Throws
/// Error(bad_input) if the job asks for what is not there.
Compute set_up_compute(const Job& job, const Communicator& world, const Communicator& node);

}  // namespace amalgam
