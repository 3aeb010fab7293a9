// SPDX-License-Identifier: Apache-2.0
// What mixers exchange where a sequence is divided among ranks (context_group.h), with autograd: in the backward pass
// the gradients travel the other way. Every function is a step that all ranks of the group take.
#pragma once

#include "mixers/sequence_places.h"

namespace amalgam {

/// x [batch, time, channels] with the last `count` inputs of the piece before in front, [batch, count + time,
/// channels]; zeros in front of the first piece. time >= count.
at::Tensor with_inputs_before(ContextGroup& context, const at::Tensor& x, int64_t count);

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

/// A recurrence from piece to piece in a context group: rule(input, state) -> MixedPiece, differentiable, state [batch,
/// heads, key dim, value dim] of `sizes`, fp32 (fp64 where the input is). The pieces are computed one after the other,
/// each as the part of the whole sequence that it is: nothing is computed twice, and the bits are those of one rank
/// where pieces begin at chunks of a text. Where documents are kept apart, zeros enter a piece that begins one; the
/// rule sees to those that begin within.
template <class Rule>
at::Tensor mix_piece(const SequencePlaces& places, const at::Tensor& input, at::IntArrayRef sizes, Rule rule) {
    const EnteringState entering = receive_state(*places.context, input, sizes);
    const auto& documents = places.documents_of_piece;
    return send_state(*places.context,
                      rule(entering.input, documents ? documents->continued(entering.state) : entering.state));
}

/// Such a rule by kernels that keep packed sequences apart: mix(state before, starts) -> MixedPiece, of each sequence
/// without starts or, where `documents` are given, of each of them, which begin at `starts` (PackedTexts).
template <class Mix>
MixedPiece mix_packed(const DocumentsOfPiece* documents, const at::Tensor& before, Mix mix) {
    if (!documents) return mix(before, at::Tensor());
    const MixedPiece all = mix(documents->entering(before), documents->own().starts());
    return {all.mixed, documents->leaving(all.state)};
}

/// Keys and values [batch, heads, time, dim] of this piece, to be used in place of the given ones, and those before it
/// [batch, heads, before, dim] that its queries may see. `length`: tokens of the whole sequences; `first_seen`: for
/// each rank, the first of them that its queries see, the same on all ranks.
struct KeysAndValues {
    at::Tensor k, v, k_before, v_before;
};
KeysAndValues with_keys_before(ContextGroup& context, const at::Tensor& k, const at::Tensor& v, int64_t length,
                               const std::vector<int64_t>& first_seen);

}  // namespace amalgam
