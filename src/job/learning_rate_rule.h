// SPDX-License-Identifier: Apache-2.0
// Learning rates by rule of thumb: what `auto` means, the centre of a race around it if one is asked for
// (learning_rate_trials.h), and what `amalgam check` holds given rates against.
//
// H is the teacher's hidden size. Updates of AdamW have the size of the rate whatever the gradient is, so what a matrix
// adds to its output grows with its width: rates fall as 1 / H from a width where they were measured (Yang et al.,
// arXiv 2203.03466).
//
//   stage     mixers                      the rest
//   align     6e-3 min(1, 576 / H)        -
//   distill   1e-3 min(1, 173 / H)        1e-4 min(10, 576 / H)
//   score     a third of distill's        a third of distill's
//   finetune  1e-4 min(1, 576 / H)        the same
//
// Measured (analysis/results/recipe): align with the relative loss, H = 128 and 576: 3e-3 to 1e-2 alike; 2e-3 is worse
// at 576. Mixers in distill: 1e-3 at 128 (3e-3 is worse), 3e-4 at 576 (1e-4 and 1e-3 are worse), which is
// 1 / H from one to the other. The rest: at 128 1e-4 and 1e-3 are alike, at 576 1e-4 is better than 3e-5 and 3e-4.
// score: a candidate has few steps, so little warm-up; at distill's rates the loss of the built-in
// candidates rises from 0.44 to 1.75 within ten of 16 steps before it falls to 0.28, at a third it only falls (layer 0,
// held-out 0.317 against 0.351): a third is cautious, not best. Wider models were not measured. What others publish for
// them, H = 1536 to 4096: align 1e-3 (arXiv 2512.20569, 2505.03005, 2601.22156), the rule gives 2.3e-3 to 0.8e-3;
// distill 1e-4 and 7e-6 (2512.20569), or one rate for all of 1e-4, 5e-5 and 3e-5 for 2, 5 and 9 billion parameters
// (2601.22156), the rule gives 1.1e-4 to 4.2e-5 and 3.8e-5 to 1.4e-5.
// finetune: 1e-5 (2505.03005, 2601.22156), the rule gives 3.8e-5 to 1.4e-5; nothing of it was measured here.
#pragma once

#include <cstdint>
#include <string>

namespace amalgam {

struct LearningRates {
    double mixers = 0.0;
    double rest = 0.0;  // align does not train it
    bool operator==(const LearningRates&) const = default;
};

/// `stage`: align, score, distill or finetune; any other is a mistake in the program (std::logic_error).
LearningRates rule_of_thumb(const std::string& stage, int64_t hidden_size);

}  // namespace amalgam
