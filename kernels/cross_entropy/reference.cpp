// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/cross_entropy/cross_entropy.h"

namespace amalgam::kernels::reference {

void cross_entropy(std::int64_t rows, std::int64_t vocabulary, const double* logits, const std::int64_t* targets,
                   double* loss, double* gradient) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const double* row_logits = logits + row * vocabulary;
        const bool ignored = targets[row] < 0;
        const double maximum = *std::max_element(row_logits, row_logits + vocabulary);
        double sum = 0;
        for (std::int64_t i = 0; i < vocabulary; ++i) sum += std::exp(row_logits[i] - maximum);
        const double normaliser = maximum + std::log(sum);
        loss[row] = ignored ? 0 : normaliser - row_logits[targets[row]];
        if (gradient == nullptr) continue;
        for (std::int64_t i = 0; i < vocabulary; ++i) {
            const double softmax = std::exp(row_logits[i] - normaliser);
            gradient[row * vocabulary + i] = ignored ? 0 : softmax - (i == targets[row] ? 1 : 0);
        }
    }
}

}  // namespace amalgam::kernels::reference
