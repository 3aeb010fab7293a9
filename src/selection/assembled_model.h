// SPDX-License-Identifier: Apache-2.0
// Any layout, put together block by block from the teacher and the aligned all-linear student: forward only, without
// making a model for it. Both have the same weights outside the mixers.
#pragma once

#include "model/causal_lm.h"

namespace amalgam {

class AssembledModel {
  public:
    /// Both must outlive this. States between blocks are kept as far as `kept_bytes` allow.
    AssembledModel(const CausalLM& teacher, const CausalLM& aligned, int64_t kept_bytes);

    /// As CausalLM::hidden, of a model with `layout`. `number` names this batch, and with `context` this rank's piece
    /// of it: if it comes again with another layout, the pass begins at the first block that differs from the one
    /// before.
    at::Tensor hidden(const TokenBatch& batch, const Layout& layout, int64_t number, ContextGroup* context = nullptr);

    /// Blocks that were computed since the beginning.
    int64_t computed_blocks() const { return computed_; }

  private:
    struct Pass {
        Layout layout;                   // of the latest pass
        std::vector<at::Tensor> inputs;  // of its blocks
    };
    /// Where the states of a batch may be kept; null: nowhere. Ranks that share its sequences keep them alike.
    Pass* kept(const TokenBatch& batch, int64_t number, const ContextGroup* context);

    const CausalLM &teacher_, &aligned_;
    double kept_bytes_;
    double bytes_ = 0.0;
    std::map<int64_t, Pass> passes_;  // by batch
    int64_t computed_ = 0;
};

}  // namespace amalgam
