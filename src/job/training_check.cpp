// SPDX-License-Identifier: Apache-2.0
#include "job/training_check.h"

#include <algorithm>
#include <set>

#include "job/training_plan.h"
#include "mixers/sequence_pieces.h"
#include "system/error.h"

namespace amalgam {
namespace {

int64_t largest_divisor(int64_t of, int64_t at_most) {
    for (int64_t candidate = std::min(of, at_most); candidate > 1; --candidate)
        if (of % candidate == 0) return candidate;
    return 1;
}

class TrainingCheck {
  public:
    TrainingCheck(std::string name, const TrainingJob& stage, int64_t sharers, int64_t context, int64_t max_positions,
                  Findings& findings)
        : name_(std::move(name)),
          stage_(stage),
          plan_(stage),
          sharers_(sharers),
          context_(context),
          max_positions_(max_positions),
          findings_(findings) {}

    void all() {
        check_sum();
        if (stage_.tokens == 0) return;
        if (stage_.phases.empty()) {
            check_phase(name_, name_, plan_.phases().front(), stage_.tokens);
        } else {
            for (size_t p = 0; p < stage_.phases.size(); ++p)
                check_phase(text(name_, ".phases[", p, "]"), text(name_, " phase ", p + 1), plan_.phases()[p],
                            stage_.phases[p].tokens);
            findings_.note_if(true, name_, ": ", plan_.steps(), " steps and ", plan_.tokens(), " tokens in ",
                              stage_.phases.size(), " phases");
        }
        check_schedule();
        if (trains_on_questions(stage_)) check_questions();
    }

  private:
    void check_sum() {
        int64_t sum = 0;
        for (const TrainingPhase& phase : stage_.phases) sum += phase.tokens;
        findings_.problem_if(!stage_.phases.empty() && stage_.tokens != sum, name_, ".tokens is ", stage_.tokens,
                             " but the phases of ", name_, ".phases have ", sum,
                             " together (they are the stage) leave it out, or give ", sum);
    }

    /// `section`: before the names of its keys; `words`: what it is called in sentences.
    void check_phase(const std::string& section, const std::string& words, const PlannedPhase& phase, int64_t tokens) {
        note_positions(section, phase.sequence_length, max_positions_, findings_);
        const int64_t batch = phase.batch_sequences, steps = phase.steps, rest = tokens - phase.tokens();
        findings_.problem_if(steps == 0, section, ".tokens is ", tokens, ", less than one step of ", batch, " x ",
                             phase.sequence_length, " = ", phase.step_tokens(),
                             " tokens (nothing would be trained) raise it or lower the batch");
        findings_.note_if(steps > 0, words, ": ", steps, " steps of ", phase.step_tokens(), " tokens",
                          rest > 0 ? text("; ", rest, " of the ", tokens, " tokens are left over") : "");
        const int64_t unread = plan_.block_length() % phase.sequence_length;
        findings_.note_if(unread > 0, words, ": ", unread, " of every ", plan_.block_length(),
                          " tokens are not read, as the longest sequences are no multiple of ", phase.sequence_length,
                          " tokens");
        check_pieces(section + ".sequence_length", phase.sequence_length, context_, findings_);
        check_shares(section, phase);
    }

    void check_shares(const std::string& section, const PlannedPhase& phase) {
        const int64_t batch = phase.batch_sequences;
        if (sharers_ < 1) return;
        if (batch % sharers_ != 0) {
            const int64_t fewer = largest_divisor(batch, sharers_);
            findings_.problem_if(true, section, ".batch_sequences is ", batch, " but ", sharers_,
                                 context_ > 1 ? " groups of ranks" : " ranks",
                                 " share it (every rank needs the same number of sequences) make it ",
                                 (batch / sharers_ + 1) * sharers_, ", or use ", fewer,
                                 context_ > 1 ? " group" : " rank", fewer == 1 ? "" : "s");
        } else if (phase.micro_batch_sequences > 0) {
            const int64_t share = batch / sharers_, micro = phase.micro_batch_sequences;
            findings_.problem_if(share % micro != 0, section, ".micro_batch_sequences is ", micro,
                                 " but a rank's share is ", share,
                                 " sequences (it is cut into equal parts) use a divisor of ", share);
        }
    }

    void check_questions() {
        const std::string key = name_ + ".question_kinds";
        findings_.problem_if(stage_.question_kinds.empty(), key, " is empty but ", name_, ".question_fraction is ",
                             stage_.question_fraction, " (no question could be asked) name some, or set ", name_,
                             ".question_fraction: 0");
        std::set<std::string> distinct;
        for (const std::string& kind : stage_.question_kinds)
            findings_.problem_if(!distinct.insert(kind).second, key, " names ", kind, " twice (a mistake?) remove one");
        int64_t sequences = 0;
        for (const PlannedPhase& phase : plan_.phases()) sequences += phase.sequences();
        findings_.note_if(true, name_, ": ", int64_t(double(sequences) * stage_.question_fraction), " of ", sequences,
                          " sequences are recall questions");
    }

    void check_schedule() {
        const int64_t steps = plan_.steps();
        const OptimizerJob& optimizer = stage_.optimizer;
        findings_.problem_if(
            steps > 0 && optimizer.warmup_fraction + optimizer.decay_fraction > 1.0 &&
                optimizer.schedule == Schedule::warmup_stable_decay,
            name_, ".optimizer: warmup_fraction ", optimizer.warmup_fraction, " and decay_fraction ",
            optimizer.decay_fraction,
            " are more than all steps (the full learning rate would never be reached) lower one of them");
        findings_.problem_if(steps > 0 && optimizer.warmup_steps >= steps, name_, ".optimizer.warmup_steps is ",
                             optimizer.warmup_steps, " but the stage has ", steps,
                             " steps (the full learning rate would never be reached) lower it");
    }

    const std::string name_;
    const TrainingJob& stage_;
    const TrainingPlan plan_;
    const int64_t sharers_, context_, max_positions_;
    Findings& findings_;
};

}  // namespace

void check_training(const std::string& name, const TrainingJob& stage, int64_t sharers, int64_t context,
                    int64_t max_positions, Findings& findings) {
    TrainingCheck(name, stage, sharers, context, max_positions, findings).all();
}

void check_pieces(const std::string& key, int64_t length, int64_t context, Findings& findings) {
    findings.problem_if(!has_pieces(length, context), "sharding.context is ", context, " but ", key, " is ", length,
                        " (each rank needs at least ", shortest_piece,
                        " tokens) use longer sequences, or fewer ranks for each");
}

void note_positions(const std::string& section, int64_t sequence_length, int64_t max_positions, Findings& findings) {
    if (max_positions == 0 || sequence_length <= max_positions) return;
    findings.notes.push_back(
        text(section, ".sequence_length is ", sequence_length, " but the teacher's max_position_embeddings is ",
             max_positions,
             " (beyond them it is asked for what it was not made for) use shorter sequences, or a RoPE scaling"));
}

}  // namespace amalgam
