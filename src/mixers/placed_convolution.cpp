// SPDX-License-Identifier: Apache-2.0
#include "mixers/placed_convolution.h"

#include "mixers/context_exchange.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, bool activation, const Documents* documents) {
    return documents ? documents->short_convolution(x, weight, activation)
                     : short_convolution(x, weight, activation, nullptr);
}

}  // namespace

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation,
                             const SequencePlaces& places) {
    if (!places.context) return convolve(x, weight, activation, places.documents.get());
    const int64_t before = weight.size(1) - 1;
    const auto& documents = places.documents_of_piece;
    return convolve(with_inputs_before(*places.context, x, before), weight, activation,
                    documents ? &documents->convolved() : nullptr)
        .narrow(1, before, x.size(1));
}

}  // namespace amalgam
