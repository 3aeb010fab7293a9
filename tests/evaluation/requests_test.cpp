// SPDX-License-Identifier: Apache-2.0
// Answers to exported requests, against logits of whole passes, on any number of ranks.
#include "evaluation/requests.h"

#include <ATen/ATen.h>

#include <cmath>

#include "../generation/whole_passes.h"
#include "../model/small_model.h"
#include "../sharding/sharded_student.h"
#include "../storage/temporary_folder.h"
#include "evaluation/judging.h"
#include "evaluation/kept_answers.h"
#include "request_contents.h"
#include "storage/hdf5.h"
#include "system/random.h"

namespace amalgam {
namespace {

constexpr int64_t vocabulary = 61;

class Requests : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        const RandomStream random(1, "requests");
        for (int64_t i = 0; i < 17; ++i) {
            std::vector<int32_t> tokens;
            for (int64_t t = 0; t < 2 + 5 * i; ++t)
                tokens.push_back(int32_t(random.bits(uint64_t(100 * i + t)) % vocabulary));
            const bool generates = i % 4 == 1;
            const int64_t length = int64_t(tokens.size());
            contents.add(tokens, generates ? length : 1 + (3 * i) % (length - 1), generates ? 5 + i : 0, i / 4 % 2);
        }
        contents.write(path);
    }

    at::Tensor tokens_of(const Request& request) const {
        const std::vector<int64_t> wide(request.tokens.begin(), request.tokens.end());
        return at::tensor(wide, at::kLong).unsqueeze(0);
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const std::filesystem::path path = folder / "requests.h5";
    test::RequestContents contents{vocabulary};
    const ModelSpec spec{test::small_config("qwen3"), keep_softmax(3, test::linear_mixer, {1}), {}};
    std::unique_ptr<CausalLM> model = test::small_model(spec, 1);
};

TEST_F(Requests, are_counted_for_estimates) {
    test::RequestContents few{vocabulary};
    few.add(std::vector<int32_t>(30, 1), 20, 0, 0);  // with the next one: two of a context that is computed once
    few.add(std::vector<int32_t>(25, 1), 20, 0, 0);
    few.add(std::vector<int32_t>(12, 2), 4, 0, 0);
    few.add(std::vector<int32_t>(40, 3), 40, 10, 0);
    few.add(std::vector<int32_t>(20, 3), 20, 30, 0);
    few.write(folder / "few.h5");
    const RequestCounts counts = count_requests(RequestFile(folder / "few.h5"), spec.config);
    EXPECT_EQ(counts.judged, 3);
    EXPECT_EQ(counts.judged_batches, 2);
    EXPECT_EQ(counts.judged_tokens, 12.0 + 20.0 + 2 * 9.0);  // the last token predicts nothing
    EXPECT_DOUBLE_EQ(counts.judged_length, (12.0 * 12.0 + 38.0 * 30.0) / 50.0);
    EXPECT_EQ(counts.judged_predictions, 10.0 + 5.0 + 8.0);
    EXPECT_EQ(counts.longest_judged, 30);
    EXPECT_EQ(counts.generating, 2);
    EXPECT_EQ(counts.prompt_tokens, 60.0);
    EXPECT_DOUBLE_EQ(counts.prompt_length, (40.0 * 40.0 + 20.0 * 20.0) / 60.0);
    EXPECT_EQ(counts.new_tokens, 40.0);
    EXPECT_DOUBLE_EQ(counts.new_length, (10.0 * 90.0 + 30.0 * 70.0) / 40.0);
    EXPECT_EQ(counts.longest_generating, 50);
}

TEST_F(Requests, continuations_are_judged_as_by_whole_passes) {
    const RequestFile file(path);
    const Answers answers = answer_requests(*model, file, 5, world);
    int64_t greedy = 0;
    for (int64_t i = 0; i < file.size(); ++i) {
        const Request request = file.request(i);
        if (request.generates()) {
            EXPECT_TRUE(std::isnan(answers.loglikelihood[size_t(i)]));
            continue;
        }
        const at::Tensor logits = model->logits(tokens_of(request)).to(at::kDouble).squeeze(0);
        const at::Tensor log_probabilities = at::log_softmax(logits, -1);
        double expected = 0.0;
        bool most_likely = true;
        for (int64_t t = request.context; t < int64_t(request.tokens.size()); ++t) {
            expected += log_probabilities[t - 1][request.tokens[size_t(t)]].item<double>();
            most_likely = most_likely && logits[t - 1].argmax().item<int64_t>() == request.tokens[size_t(t)];
        }
        EXPECT_NEAR(answers.loglikelihood[size_t(i)], expected, 1e-4 * std::abs(expected)) << i;
        EXPECT_EQ(answers.greedy[size_t(i)], int32_t(most_likely)) << i;
        EXPECT_TRUE(answers.generated[size_t(i)].empty());
        greedy += answers.greedy[size_t(i)];
    }
    EXPECT_EQ(answers.fingerprint, "of these requests");
    EXPECT_LT(greedy, file.size());
}

/// Two contexts of one length, one of another, and one that is alone; continuations from one token on.
test::RequestContents with_shared_contexts() {
    test::RequestContents shared{vocabulary};
    const auto tokens = [](int64_t count, uint64_t seed) {
        return test::row_of(test::random_tokens(1, count, vocabulary, seed), 0);
    };
    const auto add = [&](int64_t context, uint64_t seed, const std::vector<int64_t>& continuations) {
        for (const int64_t length : continuations) {
            auto whole = tokens(context, seed);
            const auto rest = tokens(length, 100 * seed + uint64_t(length));
            whole.insert(whole.end(), rest.begin(), rest.end());
            shared.add(whole, context, 0, 0);
        }
    };
    add(66, 1, {3, 1, 7});
    add(12, 2, {2});
    add(66, 3, {5, 4});
    add(20, 4, {1, 1});  // tokens of one length are the same here: a request that comes twice
    return shared;
}

TEST_F(Requests, continuations_of_one_context_are_judged_as_by_whole_passes) {
    with_shared_contexts().write(folder / "shared.h5");
    const RequestFile file(folder / "shared.h5");
    for (const char* variant : {"gdn_v3", "gdn_v4", "gla_v1", "kda_v3"}) {
        const FoundVariant found = *find_variant(variant);
        const ModelSpec hybrid{test::small_config("qwen3"), keep_softmax(3, found.mixer->name(), {1}), found.options};
        const auto own = test::small_model(hybrid, 2);
        const Answers answers = answer_requests(*own, file, 5, world);
        for (int64_t i = 0; i < file.size(); ++i) {
            const Request request = file.request(i);
            const Judgement expected =
                judge_continuations(*own, std::vector{Continuation{request.tokens, request.context}}, 64).front();
            EXPECT_NEAR(answers.loglikelihood[size_t(i)], expected.loglikelihood, 1e-4) << variant << " " << i;
            EXPECT_EQ(answers.greedy[size_t(i)], int32_t(expected.greedy)) << variant << " " << i;
        }
        const test::ShardedCopy copy(*own, false, world, test::sharding(ShardingStrategy::full));
        EXPECT_EQ(answer_requests(*copy.model, file, 5, world).loglikelihood, answers.loglikelihood);
    }
}

TEST_F(Requests, a_shared_context_is_computed_once) {
    with_shared_contexts().write(folder / "shared.h5");
    const RequestFile file(folder / "shared.h5");
    const auto cost = [&](const ModelConfig& config) {
        double sum = 0.0;
        for (const JudgedBatch& batch : judged_batches(file, config)) sum += batch.cost;
        return sum;
    };
    ModelConfig config = spec.config;
    // 66 + 66 and the 5 x 6 tokens behind them, 14, 20.
    EXPECT_EQ(cost(config), 66 + 66 + 5 * 6 + 14 + 20);
    config.rope.rope_type = "dynamic";  // rotates a context by how long the whole is
    EXPECT_GT(cost(config), 66 * 5);
}

TEST_F(Requests, a_restarted_job_answers_only_what_is_missing) {
    const RequestFile file(path);
    const AnswerPlace place{world.broadcast((folder / "answers").string()), "teacher"};
    const Answers first = answer_requests(*model, file, 64, world, place);
    const auto other = test::small_model(spec, 2);
    const auto expect_first = [&](const Answers& found, bool same) {
        EXPECT_EQ(found.greedy == first.greedy && found.generated == first.generated, same);
        for (size_t i = 0; i < first.greedy.size(); ++i)
            if (!file.request(int64_t(i)).generates())
                EXPECT_EQ(found.loglikelihood[i] == first.loglikelihood[i], same) << i;
    };
    expect_first(answer_requests(*other, file, 64, world, place), true);  // another model is not even asked
    expect_first(answer_requests(*other, file, 64, world), false);
    expect_first(answer_requests(*other, file, 64, world, {place.folder, "student"}), false);

    {  // Some of the answers are lost: they alone are computed again.
        const KeptAnswers kept(place, file.fingerprint(), world);
        EXPECT_EQ(int64_t(kept.found().size()), file.size());
    }
    int64_t lost = 0;
    world.on_root([&] {
        for (const auto& entry : std::filesystem::directory_iterator(place.folder))
            if (entry.path().filename().string().starts_with("teacher.") && lost == 0) {
                lost = int64_t(H5File::open(entry.path()).read_integers("/request").size());
                std::filesystem::remove(entry.path());
            }
    });
    lost = world.broadcast(lost);
    {
        const KeptAnswers kept(place, file.fingerprint(), world);
        EXPECT_EQ(int64_t(kept.found().size()), file.size() - lost);
    }
    expect_first(answer_requests(*model, file, 64, world, place), true);
    const KeptAnswers strange(place, "of other requests", world);
    EXPECT_TRUE(strange.found().empty());
    const KeptAnswers gone(place, file.fingerprint(), world);  // they were removed
    EXPECT_TRUE(gone.found().empty());
}

TEST_F(Requests, a_stop_leaves_the_answers_so_far) {
    const RequestFile file(path);
    const Answers whole = answer_requests(*model, file, 64, world);
    const AnswerPlace place{world.broadcast((folder / "stopped").string()), "teacher"};
    int starts = 0;
    for (std::optional<Answers> found; !found; ++starts) {
        ASSERT_LE(starts, file.size());
        int asked = 0;  // each start computes two passes, or what one engine has at work
        found = answer_requests_until([&] { return ++asked >= 2; }, *model, file, 64, world, place);
        const KeptAnswers kept(place, file.fingerprint(), world);
        EXPECT_GT(int64_t(kept.found().size()), 0);
        if (!found) {
            EXPECT_LT(int64_t(kept.found().size()), file.size());
            continue;
        }
        EXPECT_EQ(found->greedy, whole.greedy);
        EXPECT_EQ(found->generated, whole.generated);
    }
    EXPECT_GT(starts, 1);
}

TEST_F(Requests, what_the_model_would_say_is_greedy) {
    const std::vector<int32_t> prompt = {5, 6, 7, 8};
    const auto said = test::by_whole_passes(*model, prompt, 6);
    std::vector<int32_t> whole = prompt;
    whole.insert(whole.end(), said.begin(), said.end());
    test::RequestContents own{vocabulary};
    own.add(whole, 4, 0, 0);
    whole.back() = (whole.back() + 1) % int32_t(vocabulary);
    own.add(whole, 4, 0, 0);
    own.write(folder / "own.h5");
    EXPECT_EQ(answer_requests(*model, RequestFile(folder / "own.h5"), 64, world).greedy, (std::vector<int32_t>{1, 0}));
}

TEST_F(Requests, generation_ends_after_a_stop_token) {
    const RequestFile file(path);
    const Answers answers = answer_requests(*model, file, 64, world);
    int64_t generating = 0;
    for (int64_t i = 0; i < file.size(); ++i) {
        const Request request = file.request(i);
        if (!request.generates()) continue;
        ++generating;
        const auto free = test::by_whole_passes(*model, request.tokens, request.max_new_tokens);
        std::vector<int32_t> expected;
        const auto stops = file.stops(request.stop_set);
        for (int64_t t = 0; t < request.max_new_tokens; ++t) {
            expected.push_back(free[size_t(t)]);
            if (std::find(stops.begin(), stops.end(), expected.back()) != stops.end()) break;
        }
        EXPECT_EQ(answers.generated[size_t(i)], expected) << i;
    }
    EXPECT_EQ(generating, 4);
}

/// The string is a character that two tokens have half of each.
TEST_F(Requests, generation_ends_with_a_stop_string_in_the_bytes_of_its_tokens) {
    const std::vector<int32_t> prompt = {5, 6, 7, 8};
    const auto free = test::by_whole_passes(*model, prompt, 12);
    size_t last = 2;  // the first time that this token follows that one
    while (free[last] == free[last - 1]) ++last;
    const auto written = [&](const std::string& name, const std::string& stop, int64_t set) {
        test::RequestContents own{vocabulary};
        own.token_bytes.assign(size_t(vocabulary), "?");
        own.token_bytes[size_t(free[last - 1])] = "a\xC3";
        own.token_bytes[size_t(free[last])] = "\xA9z";
        own.stop_strings = {stop};
        own.stop_string_set = {set};
        own.add(prompt, 4, 12, 0);
        own.write(folder / name);
        return answer_requests(*model, RequestFile(folder / name), 64, world).generated.front();
    };
    auto expected = free;
    for (size_t t = 1; t < free.size(); ++t)
        if (free[t - 1] == free[last - 1] && free[t] == free[last]) {
            expected.resize(t + 1);
            break;
        }
    ASSERT_LT(expected.size(), free.size());
    EXPECT_EQ(written("whole.h5", "\xC3\xA9", 0), expected);
    EXPECT_EQ(written("longer.h5", "a\xC3\xA9z", 0), expected);
    EXPECT_EQ(written("absent.h5", "\xC3\xA9y", 0), free);
    EXPECT_EQ(written("other.h5", "\xC3\xA9", 1), free) << "a string of another set";
}

TEST_F(Requests, the_number_of_ranks_changes_no_bit) {
    const RequestFile file(path);
    const Answers all = answer_requests(*model, file, 64, world),
                  one = answer_requests(*model, file, 64, world.split(world.rank()));
    for (size_t i = 0; i < all.greedy.size(); ++i)
        if (!file.request(int64_t(i)).generates()) EXPECT_EQ(all.loglikelihood[i], one.loglikelihood[i]) << i;
    EXPECT_EQ(all.greedy, one.greedy);
    EXPECT_EQ(all.generated, one.generated);
}

/// All ranks must take part in every forward pass, those without work too; a hang would be this test's failure.
TEST_F(Requests, a_sharded_model_answers_the_same) {
    const RequestFile file(path);
    const test::ShardedCopy copy(*model, false, world, test::sharding(ShardingStrategy::full));
    const Answers whole = answer_requests(*model, file, 64, world),
                  sharded = answer_requests(*copy.model, file, 64, world);
    for (size_t i = 0; i < whole.greedy.size(); ++i)
        if (!file.request(int64_t(i)).generates()) EXPECT_EQ(sharded.loglikelihood[i], whole.loglikelihood[i]) << i;
    EXPECT_EQ(sharded.greedy, whole.greedy);
    EXPECT_EQ(sharded.generated, whole.generated);
}

TEST_F(Requests, files_that_do_not_fit_together_are_refused) {
    const auto refused = [&](const std::function<void(test::RequestContents&)>& change, const std::string& part) {
        test::RequestContents changed = contents;
        change(changed);
        changed.write(folder / "changed.h5");
        test::expect_error([&] { RequestFile file(folder / "changed.h5"); }, ExitCode::damaged_file,
                           {(folder / "changed.h5").string(), part});
    };
    refused([](test::RequestContents& c) { c.tokens[9] = 61; }, "/tokens: element 9 is 61");
    refused([](test::RequestContents& c) { c.offsets.back() += 1; }, "/offsets");
    refused([](test::RequestContents& c) { std::swap(c.offsets[2], c.offsets[3]); }, "/offsets");
    refused([](test::RequestContents& c) { c.context[0] = 0; }, "do not fit together");
    refused([](test::RequestContents& c) { c.context[2] = 12; }, "do not fit together");
    refused([](test::RequestContents& c) { c.context[1] -= 1; }, "do not fit together");
    refused([](test::RequestContents& c) { c.stop_set[1] = 2; }, "do not fit together");
    refused([](test::RequestContents& c) { c.max_new_tokens.pop_back(); }, "do not fit together");
}

TEST_F(Requests, a_model_of_fewer_tokens_is_refused) {
    ModelSpec small = spec;
    small.config.vocabulary_size = 60;
    const auto other = test::small_model(small, 1);
    test::expect_error([&] { answer_requests(*other, RequestFile(path), 64, world); }, ExitCode::bad_input,
                       {"evaluate.requests", "holds token 60", "knows 60 tokens"});
}

}  // namespace
}  // namespace amalgam
