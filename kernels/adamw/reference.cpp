// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/adamw/adamw.h"

namespace amalgam::kernels::reference {

void adamw_step(const AdamwStep& settings, std::int64_t count, const double* gradient, double* master, double* exp_avg,
                double* exp_avg_sq) {
    const double step = static_cast<double>(settings.step);
    const double correction1 = 1 - std::pow(settings.beta1, step);
    const double correction2 = 1 - std::pow(settings.beta2, step);
    for (std::int64_t i = 0; i < count; ++i) {
        const double g = settings.gradient_multiplier * gradient[i];
        exp_avg[i] = settings.beta1 * exp_avg[i] + (1 - settings.beta1) * g;
        exp_avg_sq[i] = settings.beta2 * exp_avg_sq[i] + (1 - settings.beta2) * g * g;
        master[i] = (1 - settings.learning_rate * settings.weight_decay) * master[i] -
                    settings.learning_rate * (exp_avg[i] / correction1) /
                        (std::sqrt(exp_avg_sq[i] / correction2) + settings.epsilon);
    }
}

}  // namespace amalgam::kernels::reference
