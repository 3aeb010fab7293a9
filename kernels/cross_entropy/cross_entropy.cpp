// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/cross_entropy/cross_entropy.h"

#include <stdexcept>
#include <string>

#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void cross_entropy(const CrossEntropy&, int);
                 void cross_entropy_with_gradient(const CrossEntropyGradient&, int);)

namespace {

template <class Arguments>
void require_targets_in_vocabulary(const Arguments& arguments) {
    for (std::int64_t row = 0; row < arguments.rows; ++row) {
        if (arguments.targets[row] < arguments.vocabulary) continue;
        throw std::invalid_argument("cross_entropy: target " + std::to_string(arguments.targets[row]) + " of row " +
                                    std::to_string(row) + " is not below the vocabulary size " +
                                    std::to_string(arguments.vocabulary) +
                                    " (the row has no such logit) check that tokenizer and model belong together");
    }
}

}  // namespace

void cross_entropy(const CrossEntropy& arguments, int threads) {
    require_targets_in_vocabulary(arguments);
    AMALGAM_VARIANT(Isa::automatic, cross_entropy)(arguments, threads);
}

void cross_entropy_with_gradient(const CrossEntropyGradient& arguments, int threads) {
    require_targets_in_vocabulary(arguments);
    AMALGAM_VARIANT(Isa::automatic, cross_entropy_with_gradient)(arguments, threads);
}

}  // namespace amalgam::kernels
