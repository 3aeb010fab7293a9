// SPDX-License-Identifier: Apache-2.0
#include "objectives/alignment.h"

#include <torch/csrc/autograd/autograd.h>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "optimizer/gradients.h"

namespace amalgam {
namespace {

constexpr int64_t layers = 3;

class AlignmentTraining : public testing::Test {
  protected:
    const ModelConfig config = test::small_config("qwen3", layers);
    std::unique_ptr<CausalLM> teacher = test::small_model({config, all_softmax(layers), {}}, 1);
    std::unique_ptr<CausalLM> student =
        test::small_model({config, all_linear(layers, test::linear_mixer), {}}, 2, true);
    const at::Tensor tokens = test::random_tokens(2, 20, config.vocabulary_size, 3);
    std::vector<double> losses;

    std::map<std::string, at::Tensor> gradients(AlignmentLoss loss, double weight = 1.0) {
        Alignment alignment(*student, *teacher, loss);
        Gradients sums(alignment.trained(), test::device(), false);
        losses.assign(size_t(alignment.losses()), 0.0);
        alignment.accumulate(tokens, 0, weight, sums, losses);
        std::map<std::string, at::Tensor> by_name;
        for (const Parameter* p : alignment.trained()) by_name[p->name] = sums.of(*p).clone();
        return by_name;
    }

    /// Teacher's mixer output and the student's for the same input, of one layer.
    std::pair<at::Tensor, at::Tensor> outputs(int64_t layer) {
        const SequencePlaces places = teacher->places(tokens);
        at::Tensor x = HeldOuterWeights(*teacher).embed(tokens);
        for (int64_t l = 0; l < layer; ++l) x = HeldBlock(*teacher, l)->forward(x, places);
        const HeldBlock block(*teacher, layer), of_student(*student, layer);
        const at::Tensor input = block->mixer_input(x);
        return {block->mixer().forward(input, places).to(at::kDouble),
                of_student->mixer().forward(input, places).to(at::kDouble)};
    }

    void expect_formula(AlignmentLoss loss, const std::function<at::Tensor(at::Tensor t, at::Tensor s)>& formula) {
        constexpr double weight = 0.3;
        const auto found = gradients(loss, weight);
        double mean = 0.0;
        for (int64_t layer = 0; layer < layers; ++layer) {
            const auto [t, s] = outputs(layer);
            const at::Tensor expected = formula(t, s);
            EXPECT_NEAR(losses[size_t(layer + 1)] / weight, expected.item<double>(), 1e-5) << "layer " << layer;
            mean += expected.item<double>() / layers;
            for (Parameter& p : student->parameters().all()) {
                if (p.layer != layer || !found.count(p.name)) continue;
                const auto gradient =
                    torch::autograd::grad({expected * (weight / layers)}, {p.compute}, {}, /*retain_graph=*/true)[0];
                EXPECT_LT(test::relative_error(found.at(p.name), gradient), 1e-5) << p.name;
            }
        }
        EXPECT_NEAR(losses[0] / weight, mean, 1e-5);
    }
};

TEST_F(AlignmentTraining, norm_is_the_mean_distance_over_the_root_of_the_width) {
    expect_formula(AlignmentLoss::norm, [&](const at::Tensor& t, const at::Tensor& s) {
        return at::sqrt((t - s).square().sum(-1)).mean() / std::sqrt(double(config.hidden_size));
    });
}

TEST_F(AlignmentTraining, relative_is_the_mean_squared_distance_over_the_teachers_square) {
    expect_formula(AlignmentLoss::relative, [](const at::Tensor& t, const at::Tensor& s) {
        return ((t - s).square().sum(-1) / t.square().sum(-1)).mean();
    });
}

TEST_F(AlignmentTraining, trains_the_linear_mixers_only) {
    Alignment alignment(*student, *teacher, AlignmentLoss::norm);
    size_t expected = 0;
    for (const Parameter& p : student->parameters().all()) expected += test::contains(p.name, ".linear_attn.") ? 1 : 0;
    EXPECT_EQ(alignment.trained().size(), expected);
    for (const Parameter* p : alignment.trained()) EXPECT_TRUE(test::contains(p->name, ".linear_attn.")) << p->name;

    auto hybrid = test::small_model({config, keep_softmax(layers, test::linear_mixer, {1}), {}}, 2, true);
    Alignment partly(*hybrid, *teacher, AlignmentLoss::norm);
    for (const Parameter* p : partly.trained()) EXPECT_NE(p->layer, 1) << p->name;
}

/// Changing one layer of the student changes nothing in the others, bit for bit.
TEST_F(AlignmentTraining, layers_are_independent) {
    const auto before = gradients(AlignmentLoss::norm);
    const auto losses_before = losses;
    for (Parameter& p : student->parameters().all())
        if (p.layer == 1) p.master.mul_(1.5);
    const auto after = gradients(AlignmentLoss::norm);
    EXPECT_NE(losses[2], losses_before[2]);
    for (const size_t other : {1, 3}) EXPECT_EQ(losses[other], losses_before[other]);
    for (const auto& [name, gradient] : before) {
        const bool changed = test::contains(name, "layers.1.");
        EXPECT_EQ(at::equal(gradient, after.at(name)), !changed) << name;
    }
}

TEST_F(AlignmentTraining, a_perfect_student_has_no_gradient) {
    for (Parameter& p : student->parameters().all())  // both mixers give zero
        if (test::contains(p.name, "o_proj")) p.master.zero_();
    for (Parameter& p : teacher->parameters().all())
        if (test::contains(p.name, "o_proj")) p.compute.zero_();
    for (const auto& [name, gradient] : gradients(AlignmentLoss::norm))
        EXPECT_EQ(gradient.abs().max().item<double>(), 0.0) << name;
    EXPECT_EQ(losses[0], 0.0);
}

}  // namespace
}  // namespace amalgam
