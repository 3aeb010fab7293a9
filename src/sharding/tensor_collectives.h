// SPDX-License-Identifier: Apache-2.0
// Collectives on tensors over a group of ranks: MPI for host tensors, NCCL for device tensors, never both on one
// memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <utility>

#include "comm/communicator.h"

namespace amalgam {

/// A collective under way. Tensors given to it must stay, untouched, until wait() has returned.
class Pending {
  public:
    Pending() = default;  // nothing to wait for
    explicit Pending(std::function<void()> wait) : wait_(std::move(wait)) {}
    Pending(Pending&& other) noexcept : wait_(std::exchange(other.wait_, nullptr)) {}
    Pending& operator=(Pending&& other) noexcept {
        wait_ = std::exchange(other.wait_, nullptr);
        return *this;
    }

    /// The result may be used by what follows on the current stream (device) or in the program (host). Throws what the
    /// collective failed with. Later calls return at once.
    void wait() {
        if (const auto wait = std::exchange(wait_, nullptr)) wait();
    }

  private:
    std::function<void()> wait_;
};

class TensorCollectives {
  public:
    virtual ~TensorCollectives() = default;
    /// Sum over the ranks, in place. fp32 or int64, contiguous.
    virtual void all_reduce(at::Tensor& t) = 0;

    // The following return at once; one instance runs them one after another. All ranks make the same calls in the same
    // order. Contiguous tensors of equal size on all ranks.

    /// Sum over the ranks, in place. fp32 or int64.
    virtual Pending start_all_reduce(at::Tensor t) = 0;
    /// whole [ranks * n] becomes the `own` [n] of all ranks in rank order. `own` may be this rank's piece of `whole`.
    virtual Pending all_gather_into(at::Tensor whole, at::Tensor own) = 0;
    /// own [n] becomes this rank's piece of the sum of all ranks' `whole` [ranks * n]. fp32, bf16 (sums rounded to
    /// bf16) or int64.
    virtual Pending reduce_scatter_into(at::Tensor own, at::Tensor whole) = 0;

    /// Seconds that the program stood still in Pending::wait(). Host tensors only: a device waits on its own stream.
    virtual double seconds_waited() const { return 0.0; }
};

/// The implementation for tensors of `device`. Collective over `group`.
std::unique_ptr<TensorCollectives> make_tensor_collectives(const Communicator& group, at::Device device);

}  // namespace amalgam
