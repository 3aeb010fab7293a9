// SPDX-License-Identifier: Apache-2.0
#include "mixers/placed_convolution.h"

#include "mixers/context_exchange.h"
#include "operations/operations.h"

namespace amalgam {

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation,
                             const SequencePlaces& places) {
    if (places.context) return short_convolution_of_piece(*places.context, x, weight, activation);
    if (places.documents) return places.documents->short_convolution(x, weight, activation);
    return short_convolution(x, weight, activation, nullptr);
}

}  // namespace amalgam
