// SPDX-License-Identifier: Apache-2.0
#include "generation/step_graph.h"

#include <ATen/ATen.h>

#ifdef AMALGAM_CUDA
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace amalgam {

at::Tensor on_device(const at::Tensor& host, at::Device device) {
    if (device.is_cpu()) return host;
    return host.pin_memory().to(device, host.scalar_type(), /*non_blocking=*/true);
}

#ifdef AMALGAM_CUDA

struct HostCopy::Event {
    at::cuda::CUDAEvent event;
};

HostCopy::HostCopy(const at::Tensor& tokens) {
    if (!tokens.is_cuda()) {
        host_ = tokens.contiguous();
        return;
    }
    host_ = at::empty(tokens.sizes(), at::TensorOptions(at::kLong).pinned_memory(true));
    host_.copy_(tokens, /*non_blocking=*/true);
    event_ = std::make_unique<Event>();
    event_->event.record();
}

const int64_t* HostCopy::wait() const {
    if (event_) event_->event.synchronize();
    return host_.const_data_ptr<int64_t>();
}

struct StepGraphs::State {
    struct Recorded {
        std::unique_ptr<at::cuda::CUDAGraph> graph;  // null after the first run, which only prepares
        at::Tensor result;
    };
    c10::cuda::CUDAStream stream;
    at::cuda::MempoolId_t pool = {0, 0};  // shared by all graphs: they never run at the same time
    std::map<int64_t, Recorded> by_rows;
};

namespace {

/// The linear mixers' and the attention's kernels take these.
bool has_kernels_for_all(const ModelSpec& spec) {
    const int64_t dim = spec.config.head_dim;
    return dim == 64 || dim == 128 || (linear_mixer(spec.layout).empty() && (dim == 32 || dim == 96));
}

}  // namespace

StepGraphs StepGraphs::take(const CausalLM& model) {
    if (!model.device().is_cuda() || model.compute_type() != at::kBFloat16 || model.weights_on_demand() ||
        !has_kernels_for_all(model.spec()))
        return StepGraphs(nullptr);
    return StepGraphs(std::make_unique<State>(
        State{c10::cuda::getStreamFromPool(/*isHighPriority=*/false, model.device().index()), {0, 0}, {}}));
}

at::Tensor StepGraphs::run(int64_t rows, const std::function<at::Tensor()>& pass) {
    if (!state_) return pass();
    const auto [found, first_time] = state_->by_rows.try_emplace(rows);
    State::Recorded& recorded = found->second;
    if (first_time) return pass();  // libraries allocate and load what they need
    if (!recorded.graph) {
        recorded.graph = std::make_unique<at::cuda::CUDAGraph>();
        recorded.graph->capture_begin(state_->pool, cudaStreamCaptureModeThreadLocal);
        recorded.result = pass();
        recorded.graph->capture_end();
        state_->pool = recorded.graph->pool();
    }
    recorded.graph->replay();
    return recorded.result;
}

void StepGraphs::on_own_stream(const std::function<void()>& work) {
    if (!state_) return work();
    c10::cuda::getCurrentCUDAStream(state_->stream.device_index()).synchronize();
    const c10::cuda::CUDAStreamGuard guard(state_->stream);
    work();
    state_->stream.synchronize();
}

#else

struct HostCopy::Event {};

HostCopy::HostCopy(const at::Tensor& tokens) : host_(tokens.cpu().contiguous()) {}

const int64_t* HostCopy::wait() const {
    return host_.const_data_ptr<int64_t>();
}

struct StepGraphs::State {};

StepGraphs StepGraphs::take(const CausalLM&) {
    return StepGraphs(nullptr);
}

at::Tensor StepGraphs::run(int64_t, const std::function<at::Tensor()>& pass) {
    return pass();
}

void StepGraphs::on_own_stream(const std::function<void()>& work) {
    work();
}

#endif

HostCopy::HostCopy(HostCopy&&) noexcept = default;
HostCopy& HostCopy::operator=(HostCopy&&) noexcept = default;
HostCopy::~HostCopy() = default;
StepGraphs::StepGraphs(std::unique_ptr<State> state) : state_(std::move(state)) {}
StepGraphs::StepGraphs(StepGraphs&&) noexcept = default;
StepGraphs::~StepGraphs() = default;

}  // namespace amalgam
