// SPDX-License-Identifier: Apache-2.0
// The ranks that share every sequence (context parallelism): each has one piece of it (sequence_pieces.h), and mixers
// tell each other what crosses the ends of pieces. Mixers only ask; who answers lives above them.
//
// The protocol, told here once. All ranks of a group run the same passes over the same layers in the same order. What a
// forward pass needs comes from earlier ranks, what a backward pass needs from later ones; no rank waits for one that
// waits for it. A message is received by the call that stands where its sender's call stood. So ranks need not keep
// step: in a forward pass each is behind the one before it by what one layer takes to produce its message, not by that
// for each layer.
//
// A transport may send a message only once its receiver is there, and one after the other: the messages of every step
// have an order that is that of each rank's own calls. Where ranks first send and then receive (keys and values, what
// convolutions read), they do both with the nearest rank first; the order is then by sender, the one farthest along the
// direction first. Where they first receive and then send (states), it is by sender along the direction.
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

class ContextGroup {
  public:
    virtual ~ContextGroup() = default;
    virtual int64_t ranks() const = 0;
    virtual int64_t rank() const = 0;
    bool is_first() const { return rank() == 0; }
    bool is_last() const { return rank() + 1 == ranks(); }

    /// Returns at once. The tensor is read until it has arrived: nobody may write it.
    virtual void send(const at::Tensor& t, int64_t to) = 0;
    /// Waits for the next tensor from that rank, which must be of these sizes and of this type.
    virtual at::Tensor receive(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) = 0;
};

}  // namespace amalgam
