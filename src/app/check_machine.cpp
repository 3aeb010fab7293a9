// SPDX-License-Identifier: Apache-2.0
#include "app/check_machine.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "comm/cores.h"
#include "estimate/gpu_kinds.h"
#include "operations/products.h"
#include "stages/compute.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr double assumed_gpu_utilisation = 0.35;

at::ScalarType type_of(const Job& job, const Machine& machine) {
    return compute_bytes(job, machine) == 2 ? at::kBFloat16 : at::kFloat;
}

/// The ranks of this node share its cores as in a run (stages/compute.h); what they reach together is measured once.
void measure_cpu(const Job& job, const std::optional<ModelConfig>& teacher, CheckedMachine& checked) {
    Machine& machine = checked.machine;
    const int cores = count(usable_cores()), ranks = int(std::min<int64_t>(machine.ranks_on_node(), 4096));
    const int share = job.deterministic ? 1 : std::max(1, cores / ranks);
    const int threads = job.threads_per_rank > 0 ? int(job.threads_per_rank) : share;
    const int busy = std::min(cores, ranks * threads);
    machine.cpu = true;
    machine.fast_bfloat16 = cpu_multiplies_bfloat16();
    machine.device = text("the CPU of this machine, ", busy, " of its ", cores, cores == 1 ? " core" : " cores");
    if (machine.peak_flops > 0 && machine.utilisation > 0) return;

    at::set_num_threads(busy);
    const at::ScalarType type = type_of(job, machine);
    const double float32 = device_peak(at::kCPU, at::kFloat),
                 measured = type == at::kFloat ? float32 : device_peak(at::kCPU, type);
    if (machine.peak_flops <= 0) {
        machine.peak_flops = measured / ranks;
        machine.device += ", measured just now";
    }
    if (machine.utilisation <= 0 && teacher)
        machine.utilisation = cpu_utilisation(job, *teacher, machine.peak_flops, float32 / ranks);
    if (type == at::kBFloat16 && !machine.fast_bfloat16) checked.notes.push_back(widened_note(measured, float32));
}

void take_gpu(const Job& job, const GpuKind& kind, Machine& machine) {
    machine.device = text("one ", kind.name, " a rank, by its data sheet");
    if (machine.peak_flops <= 0)
        machine.peak_flops = type_of(job, machine) == at::kBFloat16 ? kind.bfloat16_peak : kind.float32_peak;
}

void take_visible_gpu(const Job& job, const std::string& name, Machine& machine) {
    machine.device = text("one ", name, " a rank");
    if (machine.peak_flops <= 0) machine.peak_flops = device_peak(at::kCUDA, type_of(job, machine));
}

std::string kind_names() {
    std::string names;
    for (const GpuKind& kind : gpu_kinds()) names += (names.empty() ? "" : ", ") + kind.name;
    return names;
}

}  // namespace

CheckedMachine machine_for(const Job& job, const CheckOptions& options, const std::optional<ModelConfig>& teacher) {
    CheckedMachine checked{.machine = {.ranks = options.ranks,
                                       .memory_per_rank = options.memory_gb * 1e9,
                                       .peak_flops = options.peak_tflops * 1e12,
                                       .utilisation = options.utilisation,
                                       .ranks_per_node = options.ranks_per_node,
                                       .node_bandwidth = options.node_bandwidth_gb * 1e9},
                           .notes = {}};
    Machine& machine = checked.machine;
    const std::string asked = options.device.empty() ? name_of(job.device) : options.device;
    const std::string gpu = visible_gpu();
    // Who tells a GPU's memory means GPUs.
    const bool any_gpu = asked == "cuda" || (asked == "auto" && (!gpu.empty() || options.memory_gb > 0));
    if (asked == "cpu" || (asked == "auto" && !any_gpu)) {
        measure_cpu(job, teacher, checked);
        if (asked == "auto")
            checked.notes.push_back(
                text("no GPU is visible here: the times are those of this machine's CPU. For GPUs: --device ",
                     gpu_kinds().front().name, " (or ", kind_names(), "), or --device cuda --peak TFLOPS"));
        return checked;
    }
    if (any_gpu && !gpu.empty()) {
        take_visible_gpu(job, gpu, machine);
    } else if (any_gpu) {
        take_gpu(job, gpu_kinds().front(), machine);
        checked.notes.push_back(text("no GPU is visible here: the times assume an ", gpu_kinds().front().name,
                                     " by its data sheet. For another kind: --device NAME (", kind_names(),
                                     ") or --peak TFLOPS"));
    } else {
        const GpuKind* kind = find_gpu_kind(asked);
        require(kind != nullptr, "--device: \"", asked,
                "\" is not known (the time depends on it) use auto, cpu, cuda or one of ", kind_names(),
                "; for another GPU cuda with --peak");
        take_gpu(job, *kind, machine);
    }
    if (machine.utilisation <= 0) machine.utilisation = assumed_gpu_utilisation;
    return checked;
}

}  // namespace amalgam
