// SPDX-License-Identifier: Apache-2.0
#include "selection/far_context.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "model/own_piece.h"
#include "objectives/chunked_losses.h"

namespace amalgam {
namespace {

/// Cuts sequences, from token `first` on, into windows of `width` tokens: [sequences, time] -> [windows, width]. The
/// last window of each is filled up with `filling`, which no token before it sees.
at::Tensor cut(const at::Tensor& sequences, int64_t first, int64_t width, int64_t filling) {
    const int64_t rest = sequences.size(1) - first, missing = (width - rest % width) % width;
    return at::constant_pad_nd(sequences.narrow(1, first, rest), {0, missing}, filling).reshape({-1, width});
}

/// Of windows as cut() makes them, where documents are kept apart.
Borders borders_of_windows(const TokenBatch& batch, int64_t first, int64_t width) {
    if (!batch.documents) return {};
    const int64_t of_sequence = (batch.time() - first + width - 1) / width;
    Borders found(size_t(batch.sequences() * of_sequence));
    for (int64_t s = 0; s < batch.sequences(); ++s)
        for (const int64_t border : batch.documents->borders()[size_t(s)])
            if (const int64_t place = border - first; place > 0 && place % width > 0)
                found[size_t(s * of_sequence + place / width)].push_back(place % width);
    return found;
}

/// Writes the losses of second halves of windows, of which the first one begins at token `first`, into `loss`
/// [sequences, time]. `next`: the next tokens, likewise.
void add_losses_of_windows(const CausalLM& teacher, const at::Tensor& head, const TokenBatch& batch,
                           const at::Tensor& next, int64_t window, int64_t first, int64_t loss_chunk,
                           at::Tensor& loss) {
    const int64_t sequences = batch.sequences(), rest = batch.time() - first, width = 2 * window;
    const auto second_halves = [&](const at::Tensor& windows) { return windows.narrow(1, window, window); };
    const at::Tensor targets = cut(next, first, width, -1);
    const at::Tensor states =
        teacher.hidden({cut(batch.tokens, first, width, 0), borders_of_windows(batch, first, width)});
    const at::Tensor found =
        token_cross_entropy(second_halves(states).flatten(0, 1), head, second_halves(targets).flatten(), loss_chunk)
            .loss.view({-1, window});
    const at::Tensor placed = at::constant_pad_nd(found, {window, 0}).view({sequences, -1});
    loss.narrow(1, first, rest).add_(placed.narrow(1, 0, rest));
}

/// The tokens of the windows whose second halves have those of a piece.
SequencePiece around(const SequencePiece& piece, int64_t window, int64_t time) {
    const int64_t first = std::max<int64_t>(0, piece.first / window - 1) * window,
                  end = std::min((piece.end() + window - 1) / window * window, time);
    return {first, end - first};
}

}  // namespace

at::Tensor needs_far_context(const CausalLM& teacher, const at::Tensor& head, const TokenBatch& batch,
                             const at::Tensor& states, const FarContextJob& job, int64_t loss_chunk,
                             ContextGroup* context) {
    const at::NoGradGuard no_grad;
    const at::Tensor& tokens = batch.tokens;
    const SequencePiece piece = own_piece(batch.time(), context);
    at::Tensor far = at::zeros({batch.sequences(), piece.count}, tokens.options().dtype(at::kBool));
    if (batch.sequences() == 0 || batch.time() <= 2 * job.window) {
        const at::Tensor nothing = at::empty({0, 1}, tokens.options());
        for (int pass = 0; teacher.weights_on_demand() != nullptr && pass < 2; ++pass) teacher.hidden(nothing);
        return far.flatten();
    }
    const at::Tensor next = next_tokens(batch).view_as(tokens);
    const at::Tensor targets = own_piece(next, context).flatten();
    const at::Tensor whole = token_cross_entropy(states, head, targets, loss_chunk).loss.view_as(far);
    const SequencePiece seen = around(piece, job.window, batch.time());
    const Borders borders = batch.documents ? batch.documents->borders() : Borders();
    const TokenBatch part =
        context ? TokenBatch(tokens.narrow(1, seen.first, seen.count), borders_within(borders, seen.first, seen.end()))
                : batch;
    at::Tensor near = at::zeros(part.tokens.sizes(), whole.options());
    for (const int64_t first : {int64_t{0}, job.window})
        add_losses_of_windows(teacher, head, part, next.narrow(1, seen.first, seen.count), job.window, first,
                              loss_chunk, near);
    const int64_t begins = std::clamp<int64_t>(2 * job.window - piece.first, 0, piece.count);
    const at::Tensor gain = near.narrow(1, piece.first - seen.first, piece.count) - whole;
    far.narrow(1, begins, piece.count - begins).copy_(gain.narrow(1, begins, piece.count - begins) >= job.gain);
    return far.flatten();
}

}  // namespace amalgam
