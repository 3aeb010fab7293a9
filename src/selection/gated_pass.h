// SPDX-License-Identifier: Apache-2.0
// The teacher with a gate in every layer. In layer l its attention and the aligned student's linear mixer get the same
// normed input, and the block goes on with a_l soft_l + (1 - a_l) linear_l: gates of 1 everywhere are the teacher,
// gates of 0 the aligned all-linear student. Gradients are those of the gates; every weight is frozen.
#pragma once

#include <memory>
#include <vector>

#include "model/causal_lm.h"
#include "objectives/recorded_context.h"
#include "options/choices.h"

namespace amalgam {

class GatedPass {
  public:
    /// Forward, block by block. tokens int64 [sequences, time]; gates in [0, 1], one a layer. Both models have the same
    /// weights outside the mixers. The batch may be empty (weights_on_demand.h). With `context` of the whole sequences,
    /// of which this rank computes its piece.
    GatedPass(const CausalLM& teacher, const CausalLM& aligned, std::vector<double> gates, const at::Tensor& tokens,
              Activations activations, ContextGroup* context = nullptr);

    /// Embedding, norm and head, as long as this lives.
    const HeldOuterWeights& outer() const { return outer_; }

    /// After the final norm, without a graph: [sequences * time, width], time being that of the piece.
    at::Tensor hidden() const { return hidden_.detach().flatten(0, 1); }

    /// What the block of a layer made of its input, without a graph: [sequences * time, width].
    at::Tensor block_output(int64_t layer) const;

    /// d loss / d gate of every layer, from d loss / d hidden [sequences * time, width]; of a piece, its part of them,
    /// to be added up. Once. Zeros of an empty batch.
    std::vector<double> backward(const at::Tensor& d_hidden);

    /// The same of a loss of what the blocks made: from its derivatives by their outputs at `places` (int64 [n], each
    /// once) of the flattened tokens, [layers, n, width].
    std::vector<double> backward(const at::Tensor& places, const at::Tensor& d_outputs);

  private:
    struct Saved {
        at::Tensor input;                        // of the block, a leaf
        at::Tensor soft, linear, mixed, output;  // with graphs, only where activations are kept; `mixed` is a leaf
        std::unique_ptr<RecordedContext> context = nullptr;  // of a piece that is computed again
    };
    bool is_empty() const { return tokens_.size(0) == 0; }
    int64_t layers() const { return int64_t(gates_.size()); }
    /// From d loss / d output of the last block, to which `add` adds what the loss has of each block's output itself:
    /// add(layer, d) -> d. Undefined of an empty batch.
    template <class Add>
    std::vector<double> backward_from(at::Tensor d, Add add);
    /// Fills in what follows from the input, for the first time or again; with a graph where gradients are enabled.
    void compute(const Block& block, const Mixer& other, double gate, Saved& saved) const;
    /// Gradient with respect to the block's input; undefined for the first block, which needs none.
    at::Tensor backward_block(const Saved& saved, int64_t layer, const at::Tensor& d_output, at::Tensor& d_gate) const;

    const CausalLM &teacher_, &aligned_;
    std::vector<double> gates_;
    at::Tensor tokens_;
    SequencePlaces places_;
    HeldOuterWeights outer_;
    std::vector<Saved> saved_;
    at::Tensor last_, hidden_;  // input (a leaf) and output of the final norm
};

}  // namespace amalgam
