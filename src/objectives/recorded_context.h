// SPDX-License-Identifier: Apache-2.0
// What came from earlier ranks in a forward pass that is computed again is kept rather than sent again: so a rank need
// not wait in its backward pass for the forward passes of others.
#pragma once

#include <deque>

#include "mixers/context_group.h"

namespace amalgam {

class RecordedContext : public ContextGroup {
  public:
    explicit RecordedContext(ContextGroup& group) : group_(group) {}
    int64_t ranks() const override { return group_.ranks(); }
    int64_t rank() const override { return group_.rank(); }

    /// The same forward pass follows again, then its backward pass.
    void replay() { replays_ = true; }

    void send(const at::Tensor& t, int64_t to) override {
        if (to < rank() || !replays_) group_.send(t, to);
    }
    at::Tensor receive(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) override {
        if (from > rank()) return group_.receive(sizes, like, from);
        if (!replays_) return received_.emplace_back(group_.receive(sizes, like, from));
        at::Tensor t = std::move(received_.front());
        received_.pop_front();
        return t;
    }

  private:
    ContextGroup& group_;
    std::deque<at::Tensor> received_;
    bool replays_ = false;
};

}  // namespace amalgam
