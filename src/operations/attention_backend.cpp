// SPDX-License-Identifier: Apache-2.0
#include "operations/attention_backend.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <map>
#include <mutex>
#include <tuple>

#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

std::string name_of(at::SDPBackend backend) {
    switch (backend) {
        case at::SDPBackend::cudnn_attention:
            return "cuDNN";
        case at::SDPBackend::flash_attention:
            return "flash attention";
        case at::SDPBackend::efficient_attention:
            return "memory-efficient attention";
        case at::SDPBackend::math:
            return "plain operations";
        default:
            return "an unknown implementation";
    }
}

void prefer_cudnn() {
    at::globalContext().setSDPUseCuDNN(true);
    at::globalContext().setSDPPriorityOrder(
        {int64_t(at::SDPBackend::cudnn_attention), int64_t(at::SDPBackend::flash_attention),
         int64_t(at::SDPBackend::efficient_attention), int64_t(at::SDPBackend::math)});
}

/// What LibTorch's choice depends on; asking it costs as much as a launch.
using Kind = std::tuple<int64_t, at::ScalarType, bool, bool>;
Kind kind_of(const at::Tensor& q, const at::Tensor& k) {
    return {q.size(-1), q.scalar_type(), q.size(1) != k.size(1), q.requires_grad()};
}

}  // namespace

at::SDPBackend choose_attention_backend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    static std::mutex mutex;
    static std::map<Kind, at::SDPBackend> known;
    const std::lock_guard lock(mutex);
    if (known.empty()) prefer_cudnn();
    const auto [found, is_new] = known.try_emplace(kind_of(q, k));
    if (!is_new) return found->second;
    const bool grouped = q.size(1) != k.size(1);
    const auto backend = found->second =
        at::SDPBackend(at::_fused_sdp_choice(q, k, v, {}, 0.0, true, std::nullopt, grouped));
    const std::string what =
        text("softmax attention by ", name_of(backend), " (", q.size(1), " + ", k.size(1), " heads of ", q.size(-1),
             ", ", c10::toString(q.scalar_type()), q.requires_grad() ? ", with gradients" : "", ")");
    if (backend == at::SDPBackend::cudnn_attention)
        info(what);
    else if (at::globalContext().deterministicAlgorithms())
        info(text(what, ": the job asks for determinism, and cuDNN's gradient is not deterministic"));
    else
        warn(text(what, " (cuDNN, which is faster, does not take these operands) train in bfloat16"));
    return backend;
}

}  // namespace amalgam
