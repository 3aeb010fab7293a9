// SPDX-License-Identifier: Apache-2.0
#include "stages/compute.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "comm/cores.h"
#include "estimate/gpu_kinds.h"
#include "job/job_values.h"
#include "operations/product_speed.h"
#include "operations/products.h"
#include "system/error.h"
#ifdef AMALGAM_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace amalgam {
namespace {

// Threads wait for work by spinning: on a full node more of them slow the one that feeds the GPU.
constexpr int threads_beside_gpu = 4;

bool cuda_is_there() {
#ifdef AMALGAM_CUDA
    return at::cuda::is_available();
#else
    return false;
#endif
}

}  // namespace

bool asks_for_cuda(const std::string& option, DeviceChoice device) {
    const bool cuda = device == DeviceChoice::cuda || (device == DeviceChoice::automatic && cuda_is_there());
    require(!cuda || cuda_is_there(), option, ": cuda is asked for (no GPU is visible, or this build has no CUDA)");
    return cuda;
}

std::string visible_gpu() {
#ifdef AMALGAM_CUDA
    if (cuda_is_there()) return at::cuda::getDeviceProperties(0)->name;
#endif
    return {};
}

at::ScalarType compute_type(ComputePrecision precision, bool cuda) {
    const bool narrow = precision == ComputePrecision::bfloat16 ||
                        (precision == ComputePrecision::automatic && (cuda || cpu_multiplies_bfloat16()));
    return narrow ? at::kBFloat16 : at::kFloat;
}

double device_peak(at::Device device, at::ScalarType type) {
    if (device.is_cuda() && type == at::kBFloat16)
        if (const GpuKind* kind = find_gpu_kind(visible_gpu())) return kind->bfloat16_peak;
    return measure_product_speed(device, type);
}

std::string widened_note(double bfloat16_speed, double float32_speed) {
    return text("precision: bfloat16 on a CPU without bf16 instructions (its products are computed in float32: ",
                std::lround(bfloat16_speed / 1e9), " Gflop/s, float32's own ", std::lround(float32_speed / 1e9),
                " Gflop/s) it saves memory, not time; precision: auto takes float32 here");
}

void set_product_precision(at::ScalarType type) {
    at::globalContext().setAllowTF32CuBLAS(type == at::kBFloat16);
}

Compute set_up_compute(const Job& job, const Communicator& world, const Communicator& node) {
    Compute compute;
    const bool cuda = asks_for_cuda("device", job.device);
    // Sums of LibTorch's products may be cut differently for another number of threads; one thread has one order.
    const int automatic = job.deterministic ? 1
                          : cuda            ? std::min(share_of_cores(node), threads_beside_gpu)
                                            : share_of_cores(node);
    compute.threads = job.threads_per_rank > 0 ? int(job.threads_per_rank) : automatic;
    at::set_num_threads(compute.threads);
    if (job.deterministic) {
        setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);  // without it cuBLAS refuses to be deterministic
        at::globalContext().setDeterministicAlgorithms(true, false);
    }

    compute.type = world.all(compute_type(job.precision, cuda) == at::kBFloat16) ? at::kBFloat16 : at::kFloat;
    set_product_precision(compute.type);
    compute.description = text(cuda ? "GPU" : "CPU", ", ", compute.type == at::kBFloat16 ? "bfloat16" : "float32", ", ",
                               compute.threads, " threads");
#ifdef AMALGAM_CUDA
    if (cuda) {
        const int devices = c10::cuda::device_count();
        require(node.size() <= devices, "the node has ", devices, " visible GPUs but ", node.size(),
                " ranks (two ranks on one GPU hang in NCCL); start fewer ranks a node");
        compute.device = at::Device(at::kCUDA, c10::DeviceIndex(node.rank()));
        c10::cuda::set_device(compute.device.index());
        compute.description += text(", ", at::cuda::getDeviceProperties(compute.device.index())->name);
    }
#endif
    // All ranks measure at once, as they compute.
    const auto given = given_peak_flops(job.peak_flops);
    compute.peak_flops = given ? *given : device_peak(compute.device, compute.type);
    if (!cuda && compute.type == at::kBFloat16 && !cpu_multiplies_bfloat16())
        compute.warning = widened_note(given ? device_peak(compute.device, at::kBFloat16) : compute.peak_flops,
                                       device_peak(compute.device, at::kFloat));
    if (compute.peak_flops > 0.0) compute.description += text(", peak ", compute.peak_flops / 1e12, " Tflop/s");
    return compute;
}

}  // namespace amalgam
