// SPDX-License-Identifier: Apache-2.0
#include "operations/few_rows_map.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <vector>

#include "kernels/few_rows_product/few_rows_product.h"
#include "kernels/isa/isa.h"
#include "operations/kernel_views.h"
#ifdef AMALGAM_CUDA
#include "operations/cuda_resources.h"
#endif

namespace amalgam {
namespace {

enum class Steps { none, with_moving_weights, with_weights_there };
thread_local Steps steps = Steps::none;

/// Of more rows LibTorch's products are as fast: they reuse weights from the cache. In AMX tiles 64 rows take less than
/// twice the time of one.
int64_t most_rows_on_cpu(at::ScalarType type) {
    static const bool in_tiles = kernels::resolve_isa(kernels::Isa::automatic) == kernels::Isa::amx_bf16;
    return in_tiles && type == at::kBFloat16 ? 64 : 16;
}

/// The operands of a call, kept as long as it needs them.
struct Map {
    at::Tensor x, bias, residual;
    std::vector<int64_t> sizes;  // of the result
    kernels::FewRowsProduct call{};

    Map(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& given_bias, const AroundMap& around)
        : x(collapsible(input, 1)),
          bias(given_bias.defined() ? given_bias.contiguous() : given_bias),
          residual(around.residual.defined() ? collapsible(around.residual, 1) : around.residual) {
        sizes = input.sizes().vec();
        sizes.back() = around.gated ? weight.size(0) / 2 : weight.size(0);
        call.type = element_type(x);
        call.rows = x.numel() / weight.size(1);
        call.in = weight.size(1);
        call.out = weight.size(0);
        call.x = const_rows(x, 1);
        call.weight = {weight.const_data_ptr(), weight.stride(0)};
        if (bias.defined()) call.bias = bias.const_data_ptr();
    }

    /// The result, which the call then writes.
    at::Tensor make_result() {
        const at::Tensor y = at::empty(sizes, x.options());
        call.y = rows(y, 1);
        return y;
    }
};

#ifdef AMALGAM_CUDA
at::Tensor map_on_gpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const AroundMap& around) {
    Map map(x, weight, bias, around);
    kernels::cuda::AroundProduct call{};
    if (around.norm.defined()) call.norm = around.norm.const_data_ptr<float>();
    call.epsilon = float(around.eps);
    call.gated = around.gated;
    if (map.residual.defined()) call.residual = const_rows(map.residual, 1);
    if (!kernels::cuda::few_rows_product_supports(map.call, call)) return {};
    const at::Tensor y = map.make_result();
    kernels::cuda::few_rows_product(map.call, call, stream_of(x));
    return y;
}
#endif

}  // namespace

FewRowsAtATime::FewRowsAtATime(bool there) {
    steps = there ? Steps::with_weights_there : Steps::with_moving_weights;
}

FewRowsAtATime::~FewRowsAtATime() {
    steps = Steps::none;
}

at::Tensor few_rows_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const AroundMap& around) {
    if (steps == Steps::none || x.dim() < 2 || x.numel() == 0 || at::GradMode::is_enabled() ||
        weight.scalar_type() != x.scalar_type() || weight.stride(1) != 1)
        return {};
#ifdef AMALGAM_CUDA
    if (x.is_cuda() && steps == Steps::with_weights_there && x.scalar_type() == at::kBFloat16)
        return map_on_gpu(x, weight, bias, around);
#endif
    const bool alone = !around.norm.defined() && !around.gated && !around.residual.defined();
    if (!alone || !runs_on_cpu_kernels(x) || x.numel() / weight.size(1) > most_rows_on_cpu(x.scalar_type())) return {};
    Map map(x, weight, bias, around);
    const at::Tensor y = map.make_result();
    kernels::few_rows_product(map.call, kernel_threads());
    return y;
}

}  // namespace amalgam
