// SPDX-License-Identifier: Apache-2.0
#include "operations/product_speed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "operations/products.h"
#include "system/clock.h"
#ifdef AMALGAM_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace amalgam {

double measure_product_speed(at::Device device, at::ScalarType type) {
    const at::NoGradGuard no_grad;
    const int64_t n = device.is_cpu() ? 1024 : 4096;
    const at::Tensor a = at::ones({n, n}, at::TensorOptions(device).dtype(type));
    const auto product_seconds = [&] {
        const Stopwatch watch;
        linear_map(a, a);
#ifdef AMALGAM_CUDA
        if (device.is_cuda()) c10::cuda::device_synchronize();
#endif
        return watch.seconds();
    };
    product_seconds();  // sets libraries up
    double best = product_seconds();
    // Other programs come and go: the longer it looks, the nearer it comes to what the device can do.
    for (double spent = best; spent < (device.is_cpu() ? 0.25 : 0.02);) {
        const double seconds = product_seconds();
        best = std::min(best, seconds);
        spent += seconds;
    }
    return 2.0 * double(n * n * n) / best;
}

}  // namespace amalgam
