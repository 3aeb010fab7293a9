// SPDX-License-Identifier: Apache-2.0
// Greedy generation for many prompts at once, each with its own length. Every sequence has a slot of a cache that is
// allocated once; prompts of nearly equal lengths are computed together, long ones in chunks, then all sequences
// advance by one token a pass, through the mixers' recurrent forms. A sequence that ends leaves its slot to the next
// prompt; prompts wait until enough slots are free for a pass that is worth it. The next token is chosen on the device;
// the host reads it one pass late, so that a GPU never waits for it, and ends a sequence one pass late. On GPUs whose
// kernels take the model, the passes of one token are recorded as CUDA graphs.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "generation/decoder.h"
#include "generation/stop_strings.h"

namespace amalgam {

struct Prompt {
    std::span<const int32_t> tokens;            // at least one
    int64_t count = 0;                          // new tokens, at most
    std::span<const int32_t> stops = {};        // sorted: a sequence ends after the first of these
    const StopStrings* stop_strings = nullptr;  // null: none; else it also ends with the first of these
};

struct EngineLimits {
    int64_t slots = 0;         // sequences at a time, at most, fewer where memory is short; 0: 256 on GPUs, 64 on CPUs
    int64_t chunk_tokens = 0;  // of prompts in one pass; 0: prompt_chunk_tokens()
    int64_t memory_bytes = 0;  // for the cache; 0: of what is free
};

class GenerationEngine {
  public:
    /// For sequences of `capacity` tokens, prompt and answer together. The model must stay, and its weights as they
    /// are. Throws Error if memory has no place for a single sequence.
    GenerationEngine(const CausalLM& model, int64_t capacity, const EngineLimits& limits = {});
    GenerationEngine(const GenerationEngine&) = delete;
    GenerationEngine& operator=(const GenerationEngine&) = delete;

    int64_t capacity() const { return decoder_.size().capacity; }
    int64_t slots() const { return decoder_.size().slots; }

    /// Called with the index of a prompt and the tokens that follow it, among them the one that ended it.
    using Finished = std::function<void(size_t prompt, std::vector<int32_t> tokens)>;
    /// Answers all prompts, long ones first; they must fit the capacity. Collective if the model is sharded: ranks with
    /// fewer passes to do go on with empty ones (weights_on_demand.h). Once `stop` says so, prompts that wait are left
    /// out and only those at work are brought to their end.
    void generate(std::span<const Prompt> prompts, const Finished& finished, const std::function<bool()>& stop = {});

  private:
    struct Sequence {
        size_t prompt;
        int64_t slot = -1;
        int64_t asked = 0;  // tokens that passes so far compute
        bool done = false;
        std::vector<int32_t> tokens;
        std::string end = {};  // StopStrings::end_with
    };
    using Sequences = std::vector<std::shared_ptr<Sequence>>;

    /// Prompts that are computed together, as far as `first`.
    struct Prefill {
        Sequences sequences;
        at::Tensor tokens, slots;  // int64 [sequences, time] on the host, [sequences] on the device
        at::Tensor counts;         // as Decoder::prefill wants them
        int64_t first = 0;
    };

    /// Tokens that the device has chosen, or will have.
    struct Chosen {
        Sequences sequences;
        HostCopy tokens;
    };

    void run(const Finished& finished, const std::function<bool()>& stop);
    int64_t waiting_length(size_t ahead) const;
    /// Of the passes over prompts that come next: the length that prompts are padded to, and how many of those that
    /// wait are computed together.
    struct Group {
        int64_t time, rows;
    };
    Group next_group() const;
    /// Whether so many slots are free that the waiting prompts' turn has come.
    bool admits() const;
    void start_prefill();
    void prefill_pass();
    void step_pass();
    /// `sequences` have been asked for one more token each: those that need no more leave.
    void ask(const Sequences& sequences, const at::Tensor& tokens);
    /// Reads what was chosen, but for the latest `pending` passes.
    void deliver(size_t pending, const Finished& finished);
    void leave(const std::shared_ptr<Sequence>& sequence);

    EngineLimits limits_;
    Decoder decoder_;
    bool rows_changed_ = true;  // since the last step

    std::span<const Prompt> prompts_;
    std::vector<size_t> waiting_;  // the next one last
    std::vector<int64_t> free_;
    Prefill prefill_;
    Sequences active_;
    std::deque<Chosen> chosen_;
};

/// All prompts by engines of the sizes that they need: one as long as prompts are at least half as long as it has room
/// for. Collective if the model is sharded. `stop` as for an engine.
void generate(const CausalLM& model, std::span<const Prompt> prompts, const GenerationEngine::Finished& finished,
              const EngineLimits& limits = {}, const std::function<bool()>& stop = {});
/// As many vectors as prompts.
std::vector<std::vector<int32_t>> generate(const CausalLM& model, std::span<const Prompt> prompts,
                                           const EngineLimits& limits = {});

}  // namespace amalgam
