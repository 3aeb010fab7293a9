// SPDX-License-Identifier: Apache-2.0
#include "optimizer/gradient_norm.h"

#include <ATen/ATen.h>

#include "kernels/adamw/adamw.h"
#ifdef AMALGAM_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace amalgam {
namespace {

#ifdef AMALGAM_CUDA
double on_device(const std::vector<at::Tensor>& gradients) {
    const auto options = gradients.front().options();
    const at::Tensor squares = at::empty({int64_t(gradients.size())}, options.dtype(at::kDouble)),
                     workspace = at::empty({kernels::cuda::sum_of_squares_workspace}, options.dtype(at::kByte));
    for (size_t i = 0; i < gradients.size(); ++i)
        kernels::cuda::sum_of_squares(gradients[i].const_data_ptr<float>(), gradients[i].numel(),
                                      squares.data_ptr<double>() + i, workspace.data_ptr(),
                                      c10::cuda::getCurrentCUDAStream(gradients[i].device().index()).stream());
    return squares.sum().item<double>();
}
#endif

}  // namespace

double sum_of_squares(const std::vector<at::Tensor>& gradients, int threads) {
#ifdef AMALGAM_CUDA
    if (!gradients.empty() && gradients.front().is_cuda()) return on_device(gradients);
#endif
    double sum = 0.0;
    for (const at::Tensor& g : gradients) sum += kernels::sum_of_squares(g.const_data_ptr<float>(), g.numel(), threads);
    return sum;
}

}  // namespace amalgam
