// SPDX-License-Identifier: Apache-2.0
// The ranks that share every sequence (context parallelism): each has one piece of it (sequence_pieces.h), and mixers
// tell each other what crosses the ends of pieces. Mixers only ask; who answers lives above them.
//
// The protocol, told here once. All ranks of a group run the same passes over the same layers in the same order, and
// take the same steps in each. In a step tensors go one way, along the ranks or against them. What only flows on, the
// states and last inputs of linear layers, goes along the ranks in forward passes and against them in backward passes;
// softmax layers have steps both ways in either (softmax_attention/attention_of_piece.h). A tensor is received by the
// call that stands where its sender's call stood.
//
// Why no rank waits for ever, even if a transport sends a tensor only once its receiver asks for it, and one after the
// other. All tensors have one order, in which each rank makes its calls: by step; in a step where ranks first send and
// then expect, both with the nearest rank first, by sender, the one farthest along the direction first, and by
// receiver, the nearest first; in a step where they first receive and then send (states), by sender along the
// direction. Of the tensors that are not there yet, take the first. Neither its sender nor its receiver is held up
// before it: calls that they made before, and arrivals that they waited for, belong to tensors earlier in the order. So
// it comes.
//
// Ranks need not keep step. Where tensors only flow on, each rank is behind the one before it (in a backward pass, the
// one after it) by what one layer takes to produce its message, not by that for each layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace amalgam {

/// A tensor on its way to this rank: called once, waits for it. On GPUs the current stream waits, not the program.
using Arrival = std::function<at::Tensor()>;

class ContextGroup {
  public:
    virtual ~ContextGroup() = default;
    virtual int64_t ranks() const = 0;
    virtual int64_t rank() const = 0;
    bool is_first() const { return rank() == 0; }
    bool is_last() const { return rank() + 1 == ranks(); }

    /// Returns at once. The tensor is read until it has arrived: nobody may write it.
    virtual void send(const at::Tensor& t, int64_t to) = 0;
    /// The next tensor from that rank, which must be of these sizes and of this type. Returns at once.
    virtual Arrival expect(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) = 0;
    at::Tensor receive(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) {
        return expect(sizes, like, from)();
    }

    /// What `exchange` returns, in which a forward pass does all its sending and receiving: a pass that is computed
    /// again has what the first one got (objectives/recorded_context.h). Backward passes send and receive outside.
    virtual std::vector<at::Tensor> once(const std::function<std::vector<at::Tensor>()>& exchange) {
        return exchange();
    }
};

}  // namespace amalgam
