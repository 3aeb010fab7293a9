// SPDX-License-Identifier: Apache-2.0
// The student's forward and backward pass block by block. Every block is a graph of its own, so that its weights need
// to be there only while it is computed, and its activations may be computed again instead of kept.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/causal_lm.h"
#include "objectives/recorded_context.h"
#include "optimizer/gradient_sink.h"
#include "options/choices.h"

namespace amalgam {

/// The values of x, with which a graph of its own begins.
at::Tensor leaf(const at::Tensor& x);

class BlockwiseForward {
  public:
    /// With `context` of the whole sequences, of which this rank computes its piece.
    BlockwiseForward(CausalLM& student, const TokenBatch& batch, Activations activations,
                     ContextGroup* context = nullptr);

    /// Embedding, norm and head, as long as this lives.
    const HeldOuterWeights& outer() const { return outer_; }

    /// After the final norm, without a graph: [sequences * time, width], time being that of the piece.
    at::Tensor hidden() const { return hidden_.detach().flatten(0, 1); }

    /// Backward from d_hidden [sequences * time, width] into `gradients`. Once. The gradient of the embeddings reaches
    /// their table by index_add in fp32, without a dense gradient of the table.
    void backward(const at::Tensor& d_hidden, GradientSink& gradients);

  private:
    struct Saved {
        at::Tensor input, output;                  // output (with its graph) only where activations are kept
        std::unique_ptr<RecordedContext> context;  // of a piece that is computed again
    };
    /// The block's part of the forward pass, as if for the first time or again.
    at::Tensor forward_block(const Block& block, const Saved& saved) const;
    bool is_empty() const { return tokens_.size(0) == 0; }
    /// Gradient with respect to the block's input.
    at::Tensor backward_block(const Block& block, int64_t layer, const at::Tensor& d_output, GradientSink& gradients);

    CausalLM& student_;
    at::Tensor tokens_;
    Activations activations_;
    SequencePlaces places_;
    std::vector<std::vector<const Parameter*>> of_layer_;
    HeldOuterWeights outer_;
    std::optional<HeldBlock> last_block_;  // its backward pass comes next, so it stays in between
    std::vector<Saved> saved_;
    at::Tensor last_, hidden_;  // input (a leaf) and output of the final norm
};

}  // namespace amalgam
