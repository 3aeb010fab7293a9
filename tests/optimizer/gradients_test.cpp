// SPDX-License-Identifier: Apache-2.0
// Sums of gradients over micro-batches and ranks.
#include "optimizer/gradients.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "../model/small_model.h"

namespace amalgam {
namespace {

constexpr int64_t micro_batches = 12;

class GradientSums : public testing::Test {
  protected:
    void SetUp() override {
        first = store.add("first", {5, 7}, ParameterGroup::mixer, 0);
        second = store.add("second", {11}, ParameterGroup::rest, 0);
        store.allocate(test::device(), at::kFloat, true);
    }

    Gradients make(bool order_independent) {
        return {{first, second}, test::device(), order_independent, micro_batches};
    }

    /// Of very different sizes, so that fp32 sums depend on their order.
    void add_micro_batch(Gradients& gradients, int64_t m) const {
        const double scale = std::pow(10.0, double(m % 5) - 3.0);
        for (const Parameter* p : {first, second})
            gradients.add(*p, scale * test::normal_numbers(p->shape, uint64_t(m), p->name));
        gradients.commit();
    }

    /// Micro-batches in the order of `order`, this rank taking its part of it.
    at::Tensor sum(bool order_independent, const std::vector<int64_t>& order, const Communicator& group) {
        Gradients gradients = make(order_independent);
        const int64_t count = int64_t(order.size()), rank = group.rank(), ranks = group.size();
        for (int64_t i = count * rank / ranks; i < count * (rank + 1) / ranks; ++i)
            add_micro_batch(gradients, order[size_t(i)]);
        gradients.reduce(*make_tensor_collectives(group, test::device()));
        return gradients.flat().clone();
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    ParameterStore store;
    Parameter *first = nullptr, *second = nullptr;
};

std::vector<int64_t> ascending() {
    std::vector<int64_t> order;
    for (int64_t m = 0; m < micro_batches; ++m) order.push_back(m);
    return order;
}

TEST_F(GradientSums, order_independent_sums_have_the_same_bits_for_any_split_and_order) {
    std::vector<int64_t> order = ascending();
    const at::Tensor expected = sum(true, order, Communicator());
    EXPECT_TRUE(at::equal(sum(true, order, world), expected));
    for (int shuffle = 0; shuffle < 5; ++shuffle) {
        const Permutation permutation(micro_batches, uint64_t(shuffle));
        for (int64_t m = 0; m < micro_batches; ++m) order[size_t(m)] = int64_t(permutation.image(uint64_t(m)));
        EXPECT_TRUE(at::equal(sum(true, order, world), expected)) << "shuffle " << shuffle;
    }
}

/// Otherwise the test above would show nothing.
TEST_F(GradientSums, ordinary_sums_depend_on_the_order) {
    std::vector<int64_t> order = ascending();
    const at::Tensor expected = sum(false, order, Communicator());
    std::reverse(order.begin(), order.end());
    const at::Tensor reversed = sum(false, order, Communicator());
    EXPECT_FALSE(at::equal(reversed, expected));
    EXPECT_LT(test::relative_error(reversed, expected), 1e-5);
}

TEST_F(GradientSums, both_modes_agree_up_to_rounding) {
    const at::Tensor exact = sum(true, ascending(), world);
    EXPECT_LT(test::relative_error(sum(false, ascending(), world), exact), 1e-6);
    EXPECT_GT(exact.abs().max().item<double>(), 1.0);
}

TEST_F(GradientSums, norm_is_that_of_all_parameters) {
    Gradients gradients = make(false);
    gradients.add(*first, at::full({5, 7}, 2.0, test::on_device(at::kFloat)));
    gradients.add(*second, at::full({11}, 3.0, test::on_device(at::kFloat)));
    gradients.add(*second, at::Tensor());  // counts as zero
    EXPECT_NEAR(gradients.norm(1), std::sqrt(35.0 * 4.0 + 11.0 * 9.0), 1e-5);
    EXPECT_EQ(gradients.not_finite(), "");
    gradients.clear();
    EXPECT_EQ(gradients.norm(1), 0.0);
}

TEST_F(GradientSums, parameters_that_are_not_trained_have_none) {
    Gradients gradients({second}, test::device(), false);
    EXPECT_FALSE(gradients.of(*first).defined());
    EXPECT_EQ(gradients.of(*second).sizes(), (std::vector<int64_t>{11}));
}

/// A bad value on `ranks` of the ranks is found on all of them and is ascribed to its parameter.
TEST_F(GradientSums, what_is_not_finite_is_found_on_every_rank) {
    for (const bool order_independent : {false, true})
        for (const float bad : {NAN, INFINITY, -INFINITY})
            for (int bad_ranks = 1; bad_ranks <= world.size(); ++bad_ranks) {
                Gradients gradients = make(order_independent);
                at::Tensor values = at::ones({11}, test::on_device(at::kFloat));
                if (world.rank() >= world.size() - bad_ranks) values[4] = bad;
                gradients.add(*second, values);
                gradients.commit();
                add_micro_batch(gradients, 3);  // a good one after it must not hide it
                gradients.reduce(*make_tensor_collectives(world, test::device()));
                EXPECT_FALSE(std::isfinite(gradients.norm(1))) << order_independent << " " << bad << " " << bad_ranks;
                EXPECT_EQ(gradients.not_finite(), "second");
                EXPECT_TRUE(gradients.of(*first).isfinite().all().item<bool>());
                gradients.clear();
                EXPECT_EQ(gradients.norm(1), 0.0) << "the next step begins anew";
            }
}

/// Integers have a range: what does not fit must not come out as a wrong number.
TEST_F(GradientSums, sums_never_wrap_around) {
    const double largest = 4096.0 / micro_batches;
    for (const double sign : {1.0, -1.0}) {
        Gradients gradients = make(true);
        const auto collectives = make_tensor_collectives(world, test::device());
        const int64_t mine = micro_batches / world.size();
        for (int64_t m = 0; m < mine; ++m) {
            gradients.add(*second, at::full({11}, sign * 0.999 * largest, test::on_device(at::kFloat)));
            gradients.commit();
        }
        gradients.reduce(*collectives);
        EXPECT_NEAR(gradients.of(*second)[0].item<double>(), sign * 0.999 * largest * double(mine * world.size()),
                    1e-2);
        gradients.clear();
        for (int64_t m = 0; m < mine; ++m) {
            gradients.add(*second, at::full({11}, sign * 1.001 * largest, test::on_device(at::kFloat)));
            gradients.commit();
        }
        gradients.reduce(*collectives);
        EXPECT_EQ(gradients.not_finite(), "second");
    }
}

}  // namespace
}  // namespace amalgam
