// SPDX-License-Identifier: Apache-2.0
// The product of few rows on the GPU, with what stands around it, against the references of the operations one after
// another.
#include <array>

#include "device_memory.h"
#include "kernels/few_rows_product/few_rows_product.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/swiglu/swiglu.h"
#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct Around {
    bool norm, biased, gated, residual;
};

struct Operands {
    Matrix x, weight, bias, residual;
    std::vector<float> norm;
    static constexpr float epsilon = 1e-5F;

    Operands(std::int64_t rows, std::int64_t in, std::int64_t out)
        : x(ElementType::bfloat16, rows, in, random_values(rows * in, 1), 1),
          weight(ElementType::bfloat16, out, in, random_values(out * in, 2, 0.3), 2),
          bias(ElementType::bfloat16, 1, out, random_values(out, 3)),
          residual(ElementType::bfloat16, rows, out, random_values(rows * out, 4), 2) {
        for (const double weight_of_norm : random_values(in, 5)) norm.push_back(1 + 0.3F * float(weight_of_norm));
    }
};

FewRowsProduct call_of(const Operands& o, std::int64_t rows, std::int64_t in, std::int64_t out, const Around& around) {
    FewRowsProduct call{ElementType::bfloat16, rows, in, out, o.x, o.weight};
    if (around.biased) call.bias = o.bias.data();
    return call;
}

Matrix run(const Operands& o, std::int64_t rows, std::int64_t in, std::int64_t out, const Around& around,
           std::int64_t first_row = 0) {
    const std::int64_t width = around.gated ? out / 2 : out;
    Matrix y(ElementType::bfloat16, rows, width, 2, Matrix::Gap::odd);
    FewRowsProduct call = call_of(o, rows, in, out, around);
    call.y = y;
    cuda::AroundProduct at{nullptr, Operands::epsilon, around.gated, {}};
    if (around.norm) at.norm = o.norm.data();
    if (around.residual) at.residual = o.residual;
    const auto skip = [&](ConstRows& view) {
        if (view) view.data = static_cast<const std::uint16_t*>(view.data) + first_row * view.stride;
    };
    skip(call.x);
    skip(at.residual);
    DeviceOperands operands;
    operands.add_rows(call.x, rows, in, call.type);
    operands.add_rows(call.weight, out, in, call.type);
    operands.add_rows(call.y, rows, width, call.type);
    operands.add(call.bias, 2 * out);
    operands.add(at.norm, 4 * in);
    if (at.residual) operands.add_rows(at.residual, rows, width, call.type);
    operands.to_device();
    cuda::few_rows_product(call, at, nullptr);
    operands.to_host();
    return y;
}

std::vector<double> expected_of(const Operands& o, std::int64_t rows, std::int64_t in, std::int64_t out,
                                const Around& around) {
    std::vector<double> x = o.x.values(), y(rows * out), factor(rows, 1.0);
    const std::vector<double> weight = o.weight.values(), bias = o.bias.values();
    if (around.norm) {  // the rows' factor is applied to the product, of what is rounded before
        const std::vector<double> ones(in, 1.0);
        std::vector<double> normed(x.size()), sum(x.size());
        reference::rms_norm_forward(rows, in, Operands::epsilon, x.data(), nullptr, ones.data(), sum.data(),
                                    normed.data(), factor.data());
        for (std::size_t i = 0; i < x.size(); ++i)
            x[i] = from_bfloat16(to_bfloat16(float(x[i]) * o.norm[i % std::size_t(in)]));
    }
    reference::few_rows_product(rows, in, out, x.data(), weight.data(), nullptr, y.data());
    for (std::int64_t i = 0; i < rows * out; ++i) y[i] = factor[i / out] * y[i] + (around.biased ? bias[i % out] : 0.0);
    const std::int64_t width = around.gated ? out / 2 : out;
    std::vector<double> result(rows * width);
    const std::vector<double> residual = o.residual.values();
    for (std::int64_t r = 0; r < rows; ++r) {
        double* to = result.data() + r * width;
        if (around.gated)
            reference::swiglu_forward(width, y.data() + r * out, y.data() + r * out + width, to);
        else
            std::copy_n(y.data() + r * out, width, to);
        if (around.residual)
            for (std::int64_t i = 0; i < width; ++i) to[i] += residual[r * out + i];
    }
    return result;
}

TEST(FewRowsProductOnCuda, agrees_with_the_operations_one_after_another_whatever_the_other_rows) {
    for (const auto& [in, out] : {std::pair<std::int64_t, std::int64_t>{64, 4},
                                  {128, 92},
                                  {576, 960},
                                  {1536, 584},
                                  {8960, 272},
                                  {18944, 40},
                                  {64, 20000}})
        for (const std::int64_t rows : {1, 2, 9, 16})
            for (const Around& around : {Around{false, false, false, false}, Around{true, true, false, false},
                                         Around{true, false, true, false}, Around{false, true, true, true},
                                         Around{false, false, false, true}}) {
                SCOPED_TRACE(::testing::Message()
                             << rows << " rows, " << in << " to " << out << ", norm " << around.norm << ", bias "
                             << around.biased << ", gated " << around.gated << ", residual " << around.residual);
                const Operands operands(rows, in, out);
                const Matrix y = run(operands, rows, in, out, around);
                EXPECT_TRUE(y.gap_is_untouched());
                EXPECT_TRUE(y == run(operands, rows, in, out, around));
                expect_close(y.values(), expected_of(operands, rows, in, out, around), ElementType::bfloat16, 2e-4);
                const auto all = y.values(), alone = run(operands, 1, in, out, around, rows - 1).values();
                EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.end() - std::int64_t(alone.size())));
            }
}

TEST(FewRowsProductOnCuda, says_what_it_has_no_kernel_for) {
    const Operands operands(16, 128, 32);
    FewRowsProduct good = call_of(operands, 16, 128, 32, {});
    Matrix y(ElementType::bfloat16, 16, 32);
    good.y = y;
    EXPECT_TRUE(cuda::few_rows_product_supports(good));
    const auto refuses = [&](auto change) {
        FewRowsProduct call = good;
        change(call);
        EXPECT_FALSE(cuda::few_rows_product_supports(call));
        EXPECT_THROW(cuda::few_rows_product(call, {}, nullptr), std::invalid_argument);
    };
    refuses([](FewRowsProduct& call) { call.type = ElementType::float32; });
    refuses([](FewRowsProduct& call) { call.rows = 17; });
    refuses([](FewRowsProduct& call) { call.in = 120; });
    refuses([](FewRowsProduct& call) { call.out = 31; });
    refuses([](FewRowsProduct& call) { call.x.stride += 4; });
    refuses([](FewRowsProduct& call) { call.y.stride += 1; });
    refuses([](FewRowsProduct& call) { call.weight.stride += 4; });
}

}  // namespace
}  // namespace amalgam::kernels::testing
