// SPDX-License-Identifier: Apache-2.0
// Every mixer on sequences of several documents, against the same mixer on each document alone: outputs, gradients of
// the input and, summed over the documents, of the parameters.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "../model/small_model.h"
#include "mixer_cases.h"
#include "mixers/documents_of_piece.h"
#include "mixers/implementation.h"

namespace amalgam {
namespace {

std::vector<test::MixerCase> cases() {
    const ModelConfig llama = test::small_config("llama", 1), qwen3 = test::small_config("qwen3", 1);
    ModelConfig wide = llama;  // heads that GPUs have kernels for
    wide.head_dim = 64;
    std::vector<test::MixerCase> all = test::mixer_cases(llama, qwen3);
    for (const test::MixerCase& further : std::vector<test::MixerCase>{
             {"Kimi delta attention, bounded decays",
              {llama, {"kimi_delta_attention"}, {{"short_convolution", false}, {"lower_bound", -5.0}}}},
             {"softmax, heads of 64", {wide, {softmax_mixer}, {}}},
             {"gated delta net, heads of 64", {wide, {"gated_delta_net"}, {{"short_convolution", true}}}},
             {"gated linear attention, heads of 64", {wide, {"gated_linear_attention"}, {}}},
             {"Kimi delta attention, heads of 64", {wide, {"kimi_delta_attention"}, {{"short_convolution", true}}}},
         })
        all.push_back(further);
    return all;
}

/// Of documents of 1, 2, 3 and more tokens, shorter and longer than chunks of 64, some of which begin where chunks do.
constexpr int64_t length = 200;
const Borders borders = {{1, 3, 6, 64, 150}, {}, {100, 128, 199}};

/// All tensors are [tokens of all sequences, ...].
struct Result {
    at::Tensor output, input_gradient;
    std::vector<at::Tensor> parameter_gradients;
};

class MixersOfDocuments {
  public:
    MixersOfDocuments(const ModelSpec& spec, at::ScalarType type) : spec_(spec) {
        mixer_ = find_implementation(spec.layout[0]).make(spec, 0, store_);
        store_.allocate(test::device(), type == at::kDouble ? at::kFloat : type, true);
        test::fill_randomly(store_, 1);
        for (Parameter& p : store_.all()) {
            if (type == at::kDouble) p.compute = p.compute.detach().to(type).requires_grad_(true);
            leaves_.push_back(p.compute);
        }
        const auto numbers = [&](uint64_t seed) {
            return test::normal_numbers({int64_t(borders.size()), length, spec.config.hidden_size}, seed).to(type);
        };
        x_ = numbers(1);
        d_y_ = numbers(2);
    }

    Result together() const {
        return compute(x_, d_y_, 0, std::make_shared<const Documents>(borders, length, test::device()));
    }
    Result joined() const { return compute(x_, d_y_, 0, nullptr); }

    /// At the positions that documents have in their sequences, or from 0 on.
    Result alone(bool from_zero = false) const {
        const Documents documents(borders, length, test::device());
        std::vector<at::Tensor> outputs, input_gradients;
        Result all;
        int64_t first = 0;
        for (const int64_t count : documents.lengths()) {
            const auto of_document = [&](const at::Tensor& t) {
                return t.flatten(0, 1).narrow(0, first, count).unsqueeze(0);
            };
            const Result one = compute(of_document(x_), of_document(d_y_), from_zero ? 0 : first % length, nullptr);
            outputs.push_back(one.output);
            input_gradients.push_back(one.input_gradient);
            for (size_t i = 0; i < one.parameter_gradients.size(); ++i) {
                const at::Tensor wide = one.parameter_gradients[i].to(at::kDouble);
                if (first == 0)
                    all.parameter_gradients.push_back(wide);
                else
                    all.parameter_gradients[i] += wide;
            }
            first += count;
        }
        all.output = at::cat(outputs, 0);
        all.input_gradient = at::cat(input_gradients, 0);
        return all;
    }

  private:
    Result compute(const at::Tensor& x, const at::Tensor& d_y, int64_t first_position,
                   std::shared_ptr<const Documents> documents) const {
        const SequencePlaces places{.rotary = rotary_tables(spec_.config.rope, spec_.config.head_dim, first_position,
                                                            x.size(1), test::device()),
                                    .documents = std::move(documents)};
        std::vector<at::Tensor> leaves = leaves_;
        leaves.push_back(x.detach().requires_grad_(true));
        const at::Tensor y = mixer_->forward(leaves.back(), places);
        Result result;
        result.parameter_gradients = torch::autograd::grad({y}, leaves, {d_y});
        result.input_gradient = result.parameter_gradients.back().flatten(0, 1);
        result.parameter_gradients.pop_back();
        result.output = y.detach().flatten(0, 1);
        return result;
    }

    ModelSpec spec_;
    ParameterStore store_;
    std::unique_ptr<Mixer> mixer_;
    std::vector<at::Tensor> leaves_;
    at::Tensor x_, d_y_;
};

double difference(const Result& a, const Result& b) {
    double largest =
        std::max(test::relative_error(a.output, b.output), test::relative_error(a.input_gradient, b.input_gradient));
    for (size_t i = 0; i < a.parameter_gradients.size(); ++i)
        largest = std::max(largest, test::relative_error(a.parameter_gradients[i], b.parameter_gradients[i]));
    return largest;
}

/// The same mathematics, and in narrower types no more rounding.
TEST(MixersOfDocuments, compute_what_each_document_gives_alone) {
    for (const test::MixerCase& c : cases()) {
        const MixersOfDocuments exact(c.spec, at::kDouble);
        const Result expected = exact.alone();
        EXPECT_LT(difference(exact.together(), expected), 1e-12) << c.name;
        EXPECT_GT(difference(exact.joined(), expected), 1e-2) << c.name << ": the test sees borders";
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
            const MixersOfDocuments narrow(c.spec, type);
            // What has no kernel there adds decays up over chunks, those at borders too.
            const double allowed = test::device().is_cuda() && type == at::kFloat ? 5e-5 : 1e-7;
            EXPECT_LT(difference(narrow.together(), expected), 1.5 * difference(narrow.alone(), expected) + allowed)
                << c.name << ", " << c10::toString(type);
        }
    }
}

/// Positions run on within the sequence; what attention makes of them depends on distances. Tables are fp32.
TEST(MixersOfDocuments, a_document_is_the_same_wherever_it_lies) {
    for (const test::MixerCase& c : cases()) {
        if (c.spec.layout[0] != softmax_mixer && !c.spec.options.contains("rope")) continue;
        const MixersOfDocuments mixer(c.spec, at::kDouble);
        EXPECT_LT(difference(mixer.together(), mixer.alone(/*from_zero=*/true)), 1e-5) << c.name;
    }
}

TEST(Documents, are_counted_sequence_by_sequence) {
    const Documents documents({{2}, {}, {1, 4}}, 5, at::kCPU);
    EXPECT_EQ(documents.count(), 6);
    EXPECT_EQ(documents.lengths(), (std::vector<int64_t>{2, 3, 5, 1, 3, 1}));
    EXPECT_EQ(documents.longest(), 5);
    EXPECT_TRUE(at::equal(documents.starts(), at::tensor(std::vector<int64_t>{0, 2, 5, 10, 11, 14, 15})));
    EXPECT_TRUE(at::equal(documents.ends(), at::tensor(std::vector<int64_t>{1, 4, 9, 10, 13, 14})));
    EXPECT_TRUE(
        at::equal(documents.begins().nonzero(), at::tensor(std::vector<int64_t>{0, 2, 2, 1, 2, 4}).view({3, 2})));
}

/// Of 20 tokens: pieces of 7, 7 and 6.
TEST(Documents, of_a_piece_may_have_begun_before_it) {
    const Borders of_sequences = {{7, 8}, {5, 15}, {}};
    const DocumentsOfPiece first(of_sequences, 20, 3, 0, at::kCPU), second(of_sequences, 20, 3, 1, at::kCPU),
        third(of_sequences, 20, 3, 2, at::kCPU);
    EXPECT_EQ(first.own().lengths(), (std::vector<int64_t>{7, 5, 2, 7}));
    EXPECT_EQ(second.own().lengths(), (std::vector<int64_t>{1, 6, 7, 7}));
    EXPECT_EQ(third.own().lengths(), (std::vector<int64_t>{6, 1, 5, 6}));
    EXPECT_EQ(second.convolved().borders(), (Borders{{3, 4}, {1}, {}}));
    EXPECT_EQ(second.first(), (std::vector<int64_t>{0, 2, 3}));
    EXPECT_EQ(second.before(), (std::vector<int64_t>{0, 2, 7}));
    EXPECT_EQ(third.before(), (std::vector<int64_t>{6, 9, 14}));
    for (const DocumentsOfPiece& piece : {first, second, third})
        EXPECT_EQ(piece.beginnings(), (std::vector<int64_t>{0, 0, 0}));
    EXPECT_EQ(DocumentsOfPiece({{3, 7}, {5, 15}}, 20, 3, 1, at::kCPU).beginnings(), (std::vector<int64_t>{0, 5, 5}));

    const at::Tensor states = at::tensor({1.0, 2.0, 3.0}).view({3, 1}), continued = second.continued(states);
    EXPECT_TRUE(at::equal(continued.flatten(), at::tensor({0.0, 2.0, 3.0})));
    EXPECT_TRUE(at::equal(second.entering(continued).flatten(), at::tensor({0.0, 0.0, 2.0, 3.0})));
    EXPECT_TRUE(at::equal(second.leaving(at::arange(4).view({4, 1})).flatten(), at::tensor({1, 2, 3}, at::kLong)));
}

}  // namespace
}  // namespace amalgam
