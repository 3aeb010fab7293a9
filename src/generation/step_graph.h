// SPDX-License-Identifier: Apache-2.0
// What generation asks of a GPU: copies that nobody waits for, and passes recorded as CUDA graphs. On CPUs these are
// plain copies and calls.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>

#include "model/causal_lm.h"

namespace amalgam {

/// `host` on the device, without waiting for what is queued there.
at::Tensor on_device(const at::Tensor& host, at::Device device);

/// A copy of device memory that is under way to the host.
class HostCopy {
  public:
    /// int64 [count].
    explicit HostCopy(const at::Tensor& tokens);
    HostCopy(HostCopy&&) noexcept;
    HostCopy& operator=(HostCopy&&) noexcept;
    ~HostCopy();
    /// Waits until it has arrived.
    const int64_t* wait() const;

  private:
    struct Event;
    at::Tensor host_;
    std::unique_ptr<Event> event_;
};

/// Recorded passes by their number of rows. All are queued on one stream of their own, since the default stream cannot
/// be recorded.
class StepGraphs {
  public:
    /// Enabled for bfloat16 models on a GPU whose weights are always there and whose every mixer has kernels: LibTorch
    /// operations that stand in for a kernel look at values on the host.
    static StepGraphs take(const CausalLM& model);
    StepGraphs(StepGraphs&&) noexcept;
    ~StepGraphs();

    bool enabled() const { return state_ != nullptr; }

    /// `pass` computes on tensors that stay where they are; run it or, from the second time on, what was recorded of
    /// it. The result is overwritten by the next run of as many rows.
    at::Tensor run(int64_t rows, const std::function<at::Tensor()>& pass);

    /// Runs `work` with the own stream as LibTorch's current one, after all that is queued now; waits for its end.
    void on_own_stream(const std::function<void()>& work);

  private:
    struct State;
    explicit StepGraphs(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace amalgam
