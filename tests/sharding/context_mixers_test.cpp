// SPDX-License-Identifier: Apache-2.0
// Every mixer on a piece of a sequence for each rank, against the same mixer on the whole sequence: outputs, gradients
// of its input and, summed over the ranks, of its parameters.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "../mixers/mixer_cases.h"
#include "../model/small_model.h"
#include "mixers/implementation.h"
#include "mixers/sequence_pieces.h"
#include "sharding/context_ranks.h"
#include "synchronous_context.h"

namespace amalgam {
namespace {

std::vector<test::MixerCase> cases() {
    ModelConfig llama = test::small_config("llama", 1), qwen3 = test::small_config("qwen3", 1);
    if (test::device().is_cuda()) llama.head_dim = qwen3.head_dim = 64;  // the heads that GPU kernels take
    ModelConfig wide_window = llama;
    wide_window.window = {1000};
    ModelConfig ungrouped = llama;
    ungrouped.key_value_heads = ungrouped.query_heads;
    std::vector<test::MixerCase> all = test::mixer_cases(llama, qwen3);
    all.push_back({"softmax, own keys for each head of queries", {ungrouped, {softmax_mixer}, {}}});
    all.push_back({"softmax, window longer than the sequence", {wide_window, {softmax_mixer}, {}}});
    return all;
}

class MixersOfPieces : public testing::Test {
  protected:
    /// Of the sequences [sequences, length, ...] or of this rank's piece of them.
    struct Result {
        at::Tensor output, input_gradient;
        std::vector<at::Tensor> parameter_gradients;
    };

    Result compute(const ModelSpec& spec, int64_t length, at::ScalarType type, ContextGroup* context) const {
        ParameterStore store;
        const auto mixer = find_implementation(spec.layout[0]).make(spec, 0, store);
        store.allocate(test::device(), type == at::kDouble ? at::kFloat : type, true);
        test::fill_randomly(store, 1);
        std::vector<at::Tensor> leaves;
        for (Parameter& p : store.all()) {
            if (type == at::kDouble) p.compute = p.compute.detach().to(type).requires_grad_(true);
            leaves.push_back(p.compute);
        }
        const SequencePiece piece =
            context ? sequence_piece(length, world.size(), world.rank()) : SequencePiece{0, length};
        const int64_t sequences = borders.empty() ? 2 : int64_t(borders.size());
        const auto numbers = [&](uint64_t seed) {
            return test::normal_numbers({sequences, length, spec.config.hidden_size}, seed)
                .to(type)
                .narrow(1, piece.first, piece.count);
        };
        SequencePlaces places{
            rotary_tables(spec.config.rope, spec.config.head_dim, piece.first, piece.count, test::device(), length),
            context, length};
        if (!borders.empty() && context)
            places.documents_of_piece =
                std::make_shared<const DocumentsOfPiece>(borders, length, world.size(), world.rank(), test::device());
        else if (!borders.empty())
            places.documents = std::make_shared<const Documents>(borders, length, test::device());
        leaves.push_back(numbers(1).requires_grad_(true));
        const at::Tensor y = mixer->forward(leaves.back(), places);
        Result result;
        result.parameter_gradients = torch::autograd::grad({y}, leaves, {numbers(2)});
        result.input_gradient = result.parameter_gradients.back();
        result.parameter_gradients.pop_back();
        result.output = y.detach();
        return result;
    }

    static double difference(const Result& a, const Result& b) {
        double largest = std::max(test::relative_error(a.output, b.output),
                                  test::relative_error(a.input_gradient, b.input_gradient));
        for (size_t i = 0; i < a.parameter_gradients.size(); ++i)
            largest =
                std::max(largest, test::relative_error(a.parameter_gradients[i].cpu(), b.parameter_gradients[i].cpu()));
        return largest;
    }

    at::Tensor own(const at::Tensor& whole) const {
        const SequencePiece piece = sequence_piece(whole.size(1), world.size(), world.rank());
        return whole.narrow(1, piece.first, piece.count);
    }

    Result divided(const ModelSpec& spec, int64_t length, at::ScalarType type) {
        return divided(spec, length, type, *context);
    }
    Result divided(const ModelSpec& spec, int64_t length, at::ScalarType type, ContextGroup& group) const {
        Result result = compute(spec, length, type, &group);
        for (at::Tensor& t : result.parameter_gradients) {
            t = t.to(at::kCPU, at::kDouble).contiguous();
            world.sum_in_place(std::span<double>(t.data_ptr<double>(), size_t(t.numel())));
        }
        return result;
    }

    Result own_of_whole(const ModelSpec& spec, int64_t length, at::ScalarType type) const {
        Result result = compute(spec, length, type, nullptr);
        result.output = own(result.output);
        result.input_gradient = own(result.input_gradient);
        return result;
    }

    /// The same mathematics, and in fp32 no more rounding.
    void expect_what_the_whole_sequence_gives(const test::MixerCase& c, int64_t length, const std::string& what) {
        const Result exact = own_of_whole(c.spec, length, at::kDouble);
        EXPECT_LT(difference(divided(c.spec, length, at::kDouble), exact), 1e-12) << c.name << ", " << what;
        const double whole = difference(own_of_whole(c.spec, length, at::kFloat), exact),
                     pieces = difference(divided(c.spec, length, at::kFloat), exact);
        EXPECT_LT(pieces, 2.0 * world.max(whole) + 1e-7) << c.name << ", " << what;
    }

    Borders borders;  // of documents that are kept apart; none: sequences are one text
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const std::unique_ptr<ContextGroup> context = make_context_group(world, test::device());
};

/// Pieces of whole chunks, of chunks and a rest, and of a few tokens each.
constexpr int64_t lengths[] = {256, 267, 17};

TEST_F(MixersOfPieces, compute_what_the_whole_sequence_gives) {
    for (const test::MixerCase& c : cases())
        for (const int64_t length : lengths)
            expect_what_the_whole_sequence_gives(c, length, std::to_string(length) + " tokens");
}

struct DocumentsCase {
    std::string what;
    int64_t length;
    Borders borders;
};

/// Pieces of 267 tokens begin at 128, at 128 and 192, or at 64, 128 and 192; those of 17 at 9, at 6 and 12, or at 5, 9
/// and 13.
const DocumentsCase documents_cases[] = {
    {"borders anywhere", 267, {{1, 3, 64, 127, 130, 191, 266}, {66}, {128, 192}}},
    {"nothing crosses from piece to piece", 17, {{5, 6, 9, 12, 13}, {1, 5, 6, 9, 12, 13}}},
};

TEST_F(MixersOfPieces, keep_documents_apart_as_the_whole_sequence_does) {
    for (const DocumentsCase& documents : documents_cases) {
        borders = documents.borders;
        for (const test::MixerCase& c : cases())
            expect_what_the_whole_sequence_gives(c, documents.length, documents.what);
    }
}

TEST_F(MixersOfPieces, need_no_message_to_be_sent_before_it_is_received) {
    if (!test::device().is_cpu()) GTEST_SKIP() << "the order of messages is that of the CPU's";
    test::SynchronousContext synchronous(world);
    const auto expect_the_same = [&](const test::MixerCase& c) {
        EXPECT_EQ(difference(divided(c.spec, 267, at::kFloat, synchronous), divided(c.spec, 267, at::kFloat)), 0.0)
            << c.name;
    };
    for (const test::MixerCase& c : cases()) expect_the_same(c);
    borders = documents_cases[0].borders;  // other messages in softmax layers
    for (const test::MixerCase& c : cases())
        if (c.spec.layout[0] == softmax_mixer) expect_the_same(c);
}

TEST_F(MixersOfPieces, take_bfloat16) {
    for (const Borders& with : {Borders(), Borders{{1, 63, 64, 128}, {75}}}) {
        borders = with;
        for (const test::MixerCase& c : cases()) {
            const Result exact = own_of_whole(c.spec, 150, at::kDouble);
            const double whole = difference(own_of_whole(c.spec, 150, at::kBFloat16), exact),
                         pieces = difference(divided(c.spec, 150, at::kBFloat16), exact);
            EXPECT_LT(pieces, 1.5 * world.max(whole)) << c.name << (borders.empty() ? "" : ", documents");
        }
    }
}

}  // namespace
}  // namespace amalgam
