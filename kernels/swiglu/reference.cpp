// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/swiglu/swiglu.h"

namespace amalgam::kernels::reference {

void swiglu_forward(std::int64_t count, const double* gate, const double* up, double* y) {
    for (std::int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

void swiglu_backward(std::int64_t count, const double* y_gradient, const double* gate, const double* up,
                     double* gate_gradient, double* up_gradient) {
    for (std::int64_t i = 0; i < count; ++i) {
        const double sigmoid = 1 / (1 + std::exp(-gate[i]));
        gate_gradient[i] = y_gradient[i] * up[i] * sigmoid * (1 + gate[i] * (1 - sigmoid));
        up_gradient[i] = y_gradient[i] * gate[i] * sigmoid;
    }
}

}  // namespace amalgam::kernels::reference
