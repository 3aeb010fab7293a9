// SPDX-License-Identifier: Apache-2.0
// What mixers exchange where a sequence is divided among ranks (context_group.h), with autograd: in the backward pass
// the gradients travel the other way. Every function is a step that all ranks of the group take.
#pragma once

#include "mixers/context_group.h"

namespace amalgam {

/// x [batch, time, channels] with the last `count` inputs of the piece before in front, [batch, count + time,
/// channels]; zeros in front of the first piece. time >= count.
at::Tensor with_inputs_before(ContextGroup& context, const at::Tensor& x, int64_t count);

/// operations.h's short_convolution of a piece.
at::Tensor short_convolution_of_piece(ContextGroup& context, const at::Tensor& x, const at::Tensor& weight,
                                      bool activation);

/// Output of a recurrence over a piece, and the state that it leaves.
struct MixedPiece {
    at::Tensor mixed, state;
};

/// The state of a recurrence as it enters this piece; zero for the first. `input`: what the recurrence is to read in
/// place of the given one, so that the backward pass comes here once it is through with both.
struct EnteringState {
    at::Tensor input, state;
};
EnteringState receive_state(ContextGroup& context, const at::Tensor& input, at::IntArrayRef sizes);
/// Hands the state on; returns what is to be used in place of piece.mixed.
at::Tensor send_state(ContextGroup& context, const MixedPiece& piece);

/// A recurrence from piece to piece: rule(input, state) -> MixedPiece, differentiable, state [batch, heads, key dim,
/// value dim] of `sizes`, fp32 (fp64 where the input is). The pieces are computed one after the other, each as the part
/// of the whole sequence that it is: nothing is computed twice, and the bits are those of one rank where pieces begin
/// at chunks.
template <class Rule>
at::Tensor mix_piece(ContextGroup& context, const at::Tensor& input, at::IntArrayRef sizes, Rule rule) {
    const EnteringState entering = receive_state(context, input, sizes);
    return send_state(context, rule(entering.input, entering.state));
}

/// Keys and values [batch, heads, time, dim] of this piece, to be used in place of the given ones, and those before it
/// [batch, heads, before, dim] that its queries may see: all, or with a window > 0 (the number of keys that a query
/// sees) the last window - 1. `length`: tokens of the whole sequences.
struct KeysAndValues {
    at::Tensor k, v, k_before, v_before;
};
KeysAndValues with_keys_before(ContextGroup& context, const at::Tensor& k, const at::Tensor& v, int64_t length,
                               int64_t window);

}  // namespace amalgam
