// SPDX-License-Identifier: Apache-2.0
#include "stages/compute.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdlib>

#include "comm/cores.h"
#include "job/job_values.h"
#include "system/clock.h"
#include "system/error.h"
#ifdef AMALGAM_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace amalgam {
namespace {

bool cuda_is_there() {
#ifdef AMALGAM_CUDA
    return at::cuda::is_available();
#else
    return false;
#endif
}

#ifdef AMALGAM_CUDA
/// Dense bf16 peak of the data sheets, flop/s.
double peak_of(const std::string& name) {
    if (name.find("H100") != std::string::npos || name.find("H200") != std::string::npos) return 989e12;
    if (name.find("A100") != std::string::npos) return 312e12;
    return 0.0;
}
#endif

/// Best rate of a square matrix product in some 20 ms, flop/s. All ranks measure at once, as they compute.
double measured_peak(at::Device device, at::ScalarType type) {
    const at::NoGradGuard no_grad;
    const int64_t n = device.is_cpu() ? 512 : 4096;
    const at::Tensor a = at::ones({n, n}, at::TensorOptions(device).dtype(type));
    const auto product_seconds = [&] {
        const Stopwatch watch;
        at::mm(a, a);
#ifdef AMALGAM_CUDA
        if (device.is_cuda()) c10::cuda::device_synchronize();
#endif
        return watch.seconds();
    };
    product_seconds();  // sets libraries up
    double best = product_seconds();
    for (double spent = best; spent < 0.02;) {
        const double seconds = product_seconds();
        best = std::min(best, seconds);
        spent += seconds;
    }
    return 2.0 * double(n * n * n) / best;
}

}  // namespace

bool asks_for_cuda(const std::string& option, DeviceChoice device) {
    const bool cuda = device == DeviceChoice::cuda || (device == DeviceChoice::automatic && cuda_is_there());
    require(!cuda || cuda_is_there(), option, ": cuda is asked for (no GPU is visible, or this build has no CUDA)");
    return cuda;
}

at::ScalarType compute_type(ComputePrecision precision, bool cuda) {
    const bool narrow = precision == ComputePrecision::bfloat16 || (precision == ComputePrecision::automatic && cuda);
    return narrow ? at::kBFloat16 : at::kFloat;
}

void set_product_precision(at::ScalarType type) {
    at::globalContext().setAllowTF32CuBLAS(type == at::kBFloat16);
}

Compute set_up_compute(const Job& job, const Communicator& node) {
    Compute compute;
    // Sums of LibTorch's products may be cut differently for another number of threads; one thread has one order.
    const int automatic = job.deterministic ? 1 : share_of_cores(node);
    compute.threads = job.threads_per_rank > 0 ? int(job.threads_per_rank) : automatic;
    at::set_num_threads(compute.threads);
    if (job.deterministic) {
        setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);  // without it cuBLAS refuses to be deterministic
        at::globalContext().setDeterministicAlgorithms(true, false);
    }

    const bool cuda = asks_for_cuda("device", job.device);
    compute.type = compute_type(job.precision, cuda);
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
        const std::string name = at::cuda::getDeviceProperties(compute.device.index())->name;
        compute.peak_flops = compute.type == at::kBFloat16 ? peak_of(name) : 0.0;  // may be corrected below
        compute.description += ", " + name;
    }
#endif
    if (const auto given = given_peak_flops(job.peak_flops))
        compute.peak_flops = *given;
    else if (compute.peak_flops == 0.0)
        compute.peak_flops = measured_peak(compute.device, compute.type);
    if (compute.peak_flops > 0.0) compute.description += text(", peak ", compute.peak_flops / 1e12, " Tflop/s");
    return compute;
}

}  // namespace amalgam
