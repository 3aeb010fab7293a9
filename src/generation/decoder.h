// SPDX-License-Identifier: Apache-2.0
// The device's half of generation: caches of all slots, the tokens that come next, and the passes over them. Nothing
// here waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

#include "generation/step_graph.h"
#include "model/causal_lm.h"

namespace amalgam {

class Decoder {
  public:
    /// The model must stay, and its weights as they are.
    Decoder(const CausalLM& model, const CacheSize& size);

    const CacheSize& size() const { return cache_.size; }
    const CausalLM& model() const { return model_; }

    /// Computes tokens [first, first + time) of prompts of `length` tokens each: tokens int64 [batch, time] on the
    /// host, slots int64 [batch] on the device. With their last chunk the most likely next tokens are returned, int64
    /// [batch] on the device, and the slots are ready for steps; before it nothing. `counts`, int64 [batch] on the
    /// device, where given: tokens of each prompt, padded to `length`, all of it one chunk.
    at::Tensor prefill(const at::Tensor& tokens, const at::Tensor& slots, int64_t first, int64_t length,
                       const at::Tensor& counts = {});

    /// Steps are of these slots from now on, in this order.
    void lay_out(std::span<const int64_t> slots);
    /// One token more of each: the most likely next ones, int64 [rows] on the device, first those of the slots laid
    /// out; what follows means nothing. Overwritten by the next step.
    at::Tensor step();

    /// Takes part in a pass of a sharded model without tokens.
    void empty_pass();

    /// All slots go on from what slot 0 was after its first `length` tokens (linear mixers: from what it is now): for
    /// measurements, which need many sequences of a length and not what they say.
    void repeat_first_slot(int64_t length);

    /// Passes are faster inside `work` (StepGraphs::on_own_stream).
    void on_own_stream(const std::function<void()>& work) { graphs_.on_own_stream(work); }

  private:
    at::Tensor choose(const at::Tensor& hidden, const at::Tensor& head) const;
    at::Tensor compute_step(const at::Tensor& rows, const at::Tensor& slots);

    const CausalLM& model_;
    ModelCache cache_;
    // By slot, and a last one for rows that mean nothing: the token to be computed next, and how many were before it.
    at::Tensor next_, lengths_;  // int64 and int32 [slots + 1]
    at::Tensor rows_, slots_;    // of a step: int64 and int32 [slots]
    int64_t batch_ = 0;          // rows of a step
    StepGraphs graphs_;
};

}  // namespace amalgam
