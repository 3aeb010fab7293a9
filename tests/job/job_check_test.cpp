// SPDX-License-Identifier: Apache-2.0
#include "job/job_check.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "error_text.h"
#include "estimate/known_shapes.h"
#include "job/job_reader.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

const ModelConfig& qwen_1_5b = find_shape("qwen2.5-1.5b");

/// Inputs that exist, and a job on them that has no problem.
class JobCheck : public testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::path(testing::TempDir()) /
                  ("amalgam_job_check_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
        fs::create_directories(folder_ / "teacher");
        for (const char* file : {"teacher/config.json", "teacher/model.safetensors", "teacher/tokenizer.json",
                                 "train.h5", "validation.h5"})
            std::ofstream(folder_ / file) << "x";
        job_.teacher.path = folder_ / "teacher";
        job_.data.training = folder_ / "train.h5";
        job_.data.validation = folder_ / "validation.h5";
        job_.output = folder_ / "outputs";
        job_.select.rule = "kl_guided";
        job_.align.tokens = 100000000;
        job_.align.batch_sequences = 96;
        job_.score.tokens = 200000000;
        job_.distill.tokens = 600000000;
    }
    void TearDown() override { fs::remove_all(folder_); }

    Findings check() const { return check_job(job_, ranks_, teacher_, counts_); }

    /// The one problem that the job has now.
    std::string problem() const {
        const Findings findings = check();
        EXPECT_EQ(findings.problems.size(), 1u);
        return findings.problems.empty() ? "" : findings.problems.front();
    }

    bool has_problem(const std::string& part) const {
        for (const std::string& problem : check().problems)
            if (contains(problem, part)) return true;
        return false;
    }

    bool has_note(const std::string& part) const {
        for (const std::string& note : check().notes)
            if (contains(note, part)) return true;
        return false;
    }

    fs::path folder_;
    Job job_;
    int64_t ranks_ = 8;
    std::optional<ModelConfig> teacher_ = qwen_1_5b;
    std::optional<TokenCounts> counts_ = TokenCounts{1000000000, 10000000, 151665};
};

TEST_F(JobCheck, good_job_has_no_problems_and_says_how_many_steps) {
    const Findings findings = check();
    EXPECT_TRUE(findings.problems.empty()) << findings.problems.front();
    EXPECT_TRUE(has_note("align: 2034 steps of 49152 tokens; 24832 of the 100000000 tokens are left over"));
    EXPECT_TRUE(has_note("select: 7 of 28 layers keep softmax"));
}

TEST_F(JobCheck, sequences_longer_than_the_teachers_positions_are_noted) {
    EXPECT_FALSE(has_note("max_position_embeddings"));
    teacher_->max_positions = 2048;
    EXPECT_TRUE(has_note("distill.sequence_length is 4096 but the teacher's max_position_embeddings is 2048"));
    EXPECT_FALSE(has_note("align.sequence_length is"));
}

TEST_F(JobCheck, the_run_folder_is_not_the_teachers) {
    job_.output = folder_;
    job_.name = "teacher";
    EXPECT_TRUE(contains(problem(), "is the run folder"));
}

TEST_F(JobCheck, an_empty_corpus_is_a_problem) {
    counts_->validation = 0;
    for (const std::string& problem : check().problems)
        EXPECT_TRUE(contains(problem, "data.validation has only 0")) << problem;
    EXPECT_FALSE(check().problems.empty());
    counts_->training = 0;
    EXPECT_TRUE(contains(check().problems.front(), "data.training has 0 tokens"));
}

TEST_F(JobCheck, windows_that_scores_may_keep_are_noted) {
    EXPECT_FALSE(has_note("sliding window"));
    teacher_->window.assign(28, 0);
    teacher_->window[27] = 4096;
    EXPECT_TRUE(has_note("1 of 28 layers of the teacher have a sliding window"));
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
}

TEST_F(JobCheck, batches_and_ranks) {
    ranks_ = 64;
    const Findings findings = check();
    ASSERT_EQ(findings.problems.size(), 2u);
    EXPECT_EQ(
        findings.problems[0],
        "align.batch_sequences is 96 but 64 ranks share it (every rank needs the same number of sequences) make it "
        "128, or use 48 ranks");
    EXPECT_TRUE(contains(findings.problems[1], "distill.batch_sequences is 32 but 64 ranks share it"));
    EXPECT_TRUE(has_note("36 groups have nothing to do"));
}

TEST_F(JobCheck, ranks_that_share_sequences) {
    job_.sharding.context = 4;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    EXPECT_TRUE(has_note("score: 4 ranks measure a candidate, as many as share each sequence (sharding.context)"));
    job_.evaluate.requests = "requests.h5";
    EXPECT_TRUE(has_note("evaluate.requests: each rank answers them with whole contexts"));
    job_.evaluate.requests.clear();
    job_.score.ranks_per_candidate = 8;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    EXPECT_FALSE(has_note("ranks measure a candidate"));
    job_.score.ranks_per_candidate = 6;
    EXPECT_TRUE(contains(check().problems.front(),
                         "score.ranks_per_candidate is 6 but sharding.context is 4 (so many ranks share each sequence) "
                         "use 4 or 8"));
    job_.score.ranks_per_candidate = 1;
    ranks_ = 96 * 4;  // groups of four, one for each of align's sequences
    EXPECT_EQ(problem(),
              "distill.batch_sequences is 32 but 96 groups of ranks share it (every rank needs the same number of "
              "sequences) make it 96, or use 32 groups");
    ranks_ = 6;
    job_.align.batch_sequences = 96;
    EXPECT_TRUE(contains(problem(), "sharding.context is 4 but there are 6 ranks (so many share each sequence)"));
    ranks_ = job_.sharding.context = 256;
    for (const std::string key : {"align.sequence_length", "evaluate.sequence_length"})
        EXPECT_TRUE(has_problem("sharding.context is 256 but " + key +
                                " is 512 (each rank needs at least 3 tokens) use longer sequences, or fewer ranks for "
                                "each"))
            << key;
    job_.select.rule = "recall_guided";
    job_.score.sequence_length = 500;
    job_.score.recall.lengths = {1024, 300};
    EXPECT_TRUE(has_problem("sharding.context is 256 but score.sequence_length is 500"));
    EXPECT_TRUE(has_problem("sharding.context is 256 but score.recall.lengths is 300"));
}

TEST_F(JobCheck, documents_that_are_kept_apart) {
    job_.data.documents = DocumentBorders::separate;
    counts_->training_documents = counts_->validation_documents = 1000;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    EXPECT_FALSE(has_note("data.documents"));
    job_.select.rule = "joint_gates";
    EXPECT_TRUE(has_note("gates are trained on joined documents"));
    job_.select.rule = "kl_guided";
    counts_->validation_documents = 1;
    EXPECT_TRUE(has_note("data.validation is one document"));
    counts_->training_documents = 1;
    EXPECT_TRUE(contains(problem(), "data.documents is separate but data.training is one document"));
    counts_->training_documents = counts_->training;
    EXPECT_TRUE(contains(problem(), "every document of data.training has one token"));
    counts_->training_documents = 2;
    job_.sharding.context = 4;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    job_.sharding.context = 1;
    job_.data.documents = DocumentBorders::joined;
    counts_->training_documents = 1;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
}

TEST_F(JobCheck, gates_that_are_trained_on_states_need_questions_and_no_text) {
    job_.select.rule = "joint_gates";
    job_.score.gates.objective = GateObjective::hidden_states;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    job_.score.far_context.weight = 1.0;
    EXPECT_TRUE(has_note("not when gates are trained: score.gates.objective is hidden_states"));
    job_.score.recall.questions = 0;
    EXPECT_TRUE(
        has_problem("score.gates.objective is hidden_states but score.recall.questions is 0 (only states at "
                    "the tokens of answers are compared)"));
    job_.select.rule = "recall_guided";
    EXPECT_TRUE(check().problems.empty()) << "trains no gates";
}

TEST_F(JobCheck, packed_documents) {
    job_.data.packing = DocumentPacking::best_fit;
    EXPECT_TRUE(contains(problem(), "data.packing is best_fit but data.documents is joined"));
    job_.data.documents = DocumentBorders::separate;
    counts_->training_documents = counts_->validation_documents = 1000;
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    const int64_t tokens = job_.distill.tokens, length = job_.distill.sequence_length;
    job_.distill.phases = {{tokens / 2, length, 32, 0}, {tokens - tokens / 2, length, 64, 0}};
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
    job_.distill.phases[1].sequence_length = 2 * length;
    EXPECT_TRUE(contains(problem(), "data.packing is best_fit but distill.phases have sequences of several lengths"));
    job_.distill.tokens = 0;
    job_.distill.phases.clear();
    EXPECT_TRUE(check().problems.empty()) << check().problems.front();
}

TEST_F(JobCheck, micro_batch) {
    job_.align.micro_batch_sequences = 5;
    EXPECT_TRUE(contains(problem(), "align.micro_batch_sequences is 5 but a rank's share is 12"));
    job_.align.micro_batch_sequences = 6;
    EXPECT_TRUE(check().problems.empty());
}

TEST_F(JobCheck, groups) {
    job_.score.ranks_per_candidate = 3;
    const Findings findings = check();
    ASSERT_EQ(findings.problems.size(), 2u);
    EXPECT_TRUE(contains(findings.problems[0], "score.ranks_per_candidate is 3 but there are 8 ranks"));
    EXPECT_TRUE(contains(findings.problems[1], "score.batch_sequences is 32 but 3 ranks share it"));
}

TEST_F(JobCheck, too_few_tokens_for_one_step) {
    job_.align.tokens = 49151;
    EXPECT_TRUE(contains(problem(), "align.tokens is 49151, less than one step of 96 x 512 = 49152 tokens"));
}

TEST_F(JobCheck, warmup_and_measurements) {
    job_.align.optimizer.warmup_steps = 2034;
    EXPECT_TRUE(contains(problem(), "align.optimizer.warmup_steps is 2034 but the stage has 2034 steps"));
    job_.align.optimizer.warmup_steps = 0;
    job_.distill.optimizer.schedule = Schedule::warmup_stable_decay;
    job_.distill.optimizer.decay_fraction = 0.9;
    EXPECT_TRUE(check().problems.empty());
    job_.distill.optimizer.warmup_fraction = 0.2;
    EXPECT_TRUE(contains(problem(), "distill.optimizer: warmup_fraction 0.2 and decay_fraction 0.9"));
    job_.distill.optimizer.schedule = Schedule::linear;
    job_.score.measurements = 1526;
    EXPECT_TRUE(contains(problem(), "score.measurements is 1526 but a candidate trains for 1525 steps"));
}

TEST_F(JobCheck, skipped_stages_are_not_checked) {
    job_.finetune.batch_sequences = 7;
    EXPECT_TRUE(check().problems.empty());
    job_.finetune.tokens = 100000000;
    EXPECT_TRUE(contains(problem(), "finetune.batch_sequences is 7"));
}

TEST_F(JobCheck, missing_files_are_all_named) {
    job_.teacher.path = "no/teacher";
    job_.data.training = "no/train.h5";
    job_.data.validation = "";
    const Findings findings = check();
    ASSERT_EQ(findings.problems.size(), 3u);
    EXPECT_TRUE(
        contains(findings.problems[0], "teacher.path: no/teacher is not a folder (relative paths mean the current"));
    EXPECT_TRUE(contains(findings.problems[1], "data.training: no/train.h5 is not a file"));
    EXPECT_TRUE(contains(findings.problems[2], "data.validation is not given"));
}

TEST_F(JobCheck, teacher_folder) {
    fs::remove(folder_ / "teacher/config.json");
    EXPECT_TRUE(contains(problem(), "has no config.json"));
    std::ofstream(folder_ / "teacher/config.json") << "x";
    fs::remove(folder_ / "teacher/model.safetensors");
    EXPECT_TRUE(contains(problem(), "has no *.safetensors"));
    std::ofstream(folder_ / "teacher/model.safetensors") << "x";
    fs::remove(folder_ / "teacher/tokenizer.json");
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("no tokenizer.json"));
}

TEST_F(JobCheck, training_on_the_validation_file) {
    job_.data.validation = job_.data.training;
    EXPECT_TRUE(contains(problem(), "data.validation is the training file"));
}

TEST_F(JobCheck, names_and_walltime) {
    job_.name = "a/b";
    EXPECT_TRUE(contains(problem(), "name is \"a/b\""));
    job_.name = "..";
    EXPECT_TRUE(contains(problem(), "name is \"..\""));
    job_.name = "ok";
    job_.walltime = "12 hours";
    EXPECT_TRUE(contains(problem(), "walltime is \"12 hours\""));
    job_.walltime = "";
    job_.output = job_.data.training;
    EXPECT_TRUE(contains(problem(), "is not a folder"));
}

TEST_F(JobCheck, corpora) {
    counts_->validation = 32 * 4096 - 1;
    EXPECT_TRUE(contains(problem(), "score.validation_sequences is 32 but data.validation has only 31 sequences"));
    counts_ = TokenCounts{500, 10000000, 0};
    EXPECT_EQ(check().problems.size(), 3u);
    counts_ = TokenCounts{150000000, 10000000, 0};
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("distill: 600000000 tokens from a corpus of 150000000"));
    counts_->vocabulary_size = 200000;
    EXPECT_TRUE(contains(problem(), "the token files need a vocabulary of 200000 tokens but the teacher knows 151936"));
}

TEST_F(JobCheck, a_student_to_start_from) {
    job_.student.options["start"] = std::string("/no/such/align.h5");
    EXPECT_TRUE(contains(problem(), "student.start: /no/such/align.h5 is not a file"));
    job_.student.options["start"] = std::string();
    EXPECT_TRUE(check().problems.empty());
}

TEST_F(JobCheck, recall) {
    teacher_->max_positions = 4096;
    job_.evaluate.recall = {.questions = 0, .kinds = {}, .lengths = {}};
    EXPECT_TRUE(check().problems.empty()) << "nothing is asked";
    job_.evaluate.recall = {.questions = 5};
    EXPECT_TRUE(check().problems.empty());
    EXPECT_FALSE(has_note("evaluate.recall"));
    job_.evaluate.recall.kinds = {};
    EXPECT_TRUE(contains(problem(), "evaluate.recall.kinds is empty"));
    job_.evaluate.recall = {.questions = 5, .lengths = {1024, 2048, 1024}};
    EXPECT_TRUE(contains(problem(), "evaluate.recall.lengths names 1024 twice"));
    job_.evaluate.recall = {.questions = 5, .lengths = {4097}};
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("evaluate.recall.lengths holds 4097 but the teacher was made for at most 4096"));
    job_.evaluate.recall = {.questions = 5};
    job_.evaluate.sequences = 0;
    EXPECT_TRUE(contains(problem(), "evaluate.recall.questions is 5 but evaluate.sequences is 0"));
}

TEST_F(JobCheck, questions_among_training_sequences) {
    job_.distill.question_kinds = {};
    EXPECT_TRUE(check().problems.empty()) << "nothing is asked";
    job_.distill.question_fraction = 0.1;
    EXPECT_TRUE(contains(problem(), "distill.question_kinds is empty but distill.question_fraction is 0.1"));
    job_.distill.question_kinds = {"noise", "text", "noise"};
    EXPECT_TRUE(contains(problem(), "distill.question_kinds names noise twice"));
    job_.distill.question_kinds = {"noise"};
    EXPECT_TRUE(check().problems.empty());
    job_.distill.phases = {{.tokens = 195 * 512, .sequence_length = 512, .batch_sequences = 1}};
    job_.distill.tokens = 195 * 512;
    EXPECT_TRUE(has_note("distill: 19 of 195 sequences are recall questions"));
    job_.score.question_fraction = 0.1;
    EXPECT_FALSE(has_note("score.question_fraction is not used"));
    job_.select.rule = "recall_guided";
    EXPECT_TRUE(has_note("score.question_fraction is not used"));
}

TEST_F(JobCheck, selection) {
    job_.select.options["budget"] = "29";
    EXPECT_TRUE(contains(problem(), "select.budget is 29 but the teacher has 28 layers"));
    job_.select.options["budget"] = "a quarter";
    EXPECT_TRUE(contains(problem(), "select.budget is \"a quarter\""));
    teacher_.reset();
    EXPECT_TRUE(contains(problem(), "select.budget is \"a quarter\""));
    teacher_ = qwen_1_5b;
    job_.select.rule = "explicit";
    EXPECT_TRUE(contains(problem(), "select.layers is empty"));
    job_.select.options["layers"] = std::vector<int64_t>{3, 28, 3};
    const Findings findings = check();
    ASSERT_EQ(findings.problems.size(), 2u);
    EXPECT_TRUE(contains(findings.problems[0], "names layer 3 twice"));
    EXPECT_TRUE(contains(findings.problems[1], "names layer 28 but the teacher has 28"));
    job_.select.options["layers"] = std::vector<int64_t>{3, 27};
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("scores are not used"));
    EXPECT_TRUE(has_note("select.budget is not used by rule explicit")) << "it is still \"a quarter\"";
    EXPECT_FALSE(has_note("select.seed is not used")) << "nobody gave it";
}

TEST_F(JobCheck, groups_without_a_candidate) {
    ranks_ = 32;
    job_.align.batch_sequences = job_.distill.batch_sequences = 32;
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("score: 32 groups of ranks but 28 candidates; 4 groups have nothing to do"));
    job_.score.ranks_per_candidate = 2;
    EXPECT_FALSE(has_note("groups have nothing to do"));
}

TEST_F(JobCheck, guided_selection_needs_scores) {
    job_.score.tokens = 0;
    EXPECT_TRUE(contains(problem(), "select.rule is kl_guided but score.tokens is 0"));
    job_.select.rule = "uniform";
    EXPECT_TRUE(check().problems.empty());
    job_.select.options["phase"] = int64_t{28};
    EXPECT_TRUE(contains(problem(), "select.phase is 28"));
}

TEST_F(JobCheck, candidates_that_are_not_distilled_need_no_training_tokens) {
    job_.select.rule = "recall_guided";
    job_.score.tokens = 0;
    EXPECT_TRUE(check().problems.empty());
    job_.score.recall.questions = 0;
    EXPECT_TRUE(check().problems.empty()) << "then text alone decides";
    job_.select.rule = "ablation";
    EXPECT_TRUE(contains(problem(), "select.rule is ablation but score.recall.questions is 0"));
    job_.score.recall.questions = 1;
    job_.score.recall.lengths = {};
    EXPECT_TRUE(contains(problem(), "score.recall.lengths is empty"));
}

TEST_F(JobCheck, far_context_lies_before_the_last_two_windows) {
    job_.select.rule = "recall_guided";
    job_.score.sequence_length = 512;
    job_.score.far_context = {.weight = 0.0, .window = 256};
    EXPECT_TRUE(check().problems.empty()) << "not looked for";
    job_.score.far_context.weight = 1.0;
    EXPECT_TRUE(contains(problem(), "score.far_context.window is 256 but score.sequence_length is 512"));
    job_.score.far_context.window = 255;
    EXPECT_TRUE(check().problems.empty());
    EXPECT_FALSE(has_note("score.far_context"));
    job_.select.rule = "kl_guided";
    job_.score.sequence_length = 128;
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("score.far_context.weight is not used by rule kl_guided"));
}

/// Keys of a training that the rule does not ask for neither stop a job nor make it look like one.
TEST_F(JobCheck, training_of_candidates_is_checked_where_they_are_trained) {
    job_.score.measurements = 1526;
    EXPECT_TRUE(contains(problem(), "a candidate trains for 1525 steps"));
    EXPECT_TRUE(has_note("score: 1525 steps"));
    for (const char* rule : {"recall_guided", "uniform"}) {
        job_.select.rule = rule;
        EXPECT_TRUE(check().problems.empty()) << rule;
        EXPECT_FALSE(has_note("score: 1525 steps")) << rule;
    }
}

TEST_F(JobCheck, exports_that_cannot_express_the_student) {
    job_.student.options["output_gate"] = false;
    EXPECT_TRUE(contains(problem(), "export.formats: export qwen3_5: the student has no output gate"));
    EXPECT_TRUE(contains(problem(), "or take qwen3_5 out of export.formats"));
    job_.export_to.formats = {"fla"};
    EXPECT_TRUE(check().problems.empty());
    job_.student.options["output_norm"] = false;
    EXPECT_TRUE(contains(problem(), "gated delta nets without output norm"));
    job_.export_to.formats = {};
    EXPECT_TRUE(check().problems.empty());
    job_.student = {};
    job_.export_to.formats = {"fla", "fla"};
    EXPECT_TRUE(contains(problem(), "names fla twice"));
}

/// What a format lacks for the teacher's softmax layers is known before the run, too.
TEST_F(JobCheck, exports_that_cannot_express_the_teacher) {
    teacher_->qk_norm = true;  // Qwen3
    EXPECT_TRUE(check().problems.empty());
    job_.export_to.formats = {"fla"};
    EXPECT_TRUE(contains(problem(), "softmax layers have q/k norm"));
    job_.select.rule = "all_linear";
    EXPECT_TRUE(check().problems.empty()) << "no softmax layer is exported";

    teacher_ = qwen_1_5b;
    job_.select.rule = "kl_guided";
    job_.export_to.formats = {"qwen3_5"};
    job_.student.output_norm_eps = OutputNormEps::reference;  // the teacher's is 1e-6
    EXPECT_TRUE(contains(problem(), "eps is 1e-05"));
    job_.export_to.formats = {"fla"};
    EXPECT_TRUE(check().problems.empty()) << "it is written scaled";
    job_.export_to.formats = {"qwen3_5"};
    teacher_.reset();
    EXPECT_TRUE(check().problems.empty());
    EXPECT_TRUE(has_note("only if the teacher's is 1e-5"));
}

TEST_F(JobCheck, sliding_windows_are_held_against_exports_only_where_they_must_be_kept) {
    teacher_->window.assign(28, 4096);
    EXPECT_TRUE(contains(problem(), "sliding window of 4096"));
    for (int64_t layer = 0; layer < 7; ++layer) teacher_->window[size_t(layer)] = 0;
    EXPECT_TRUE(check().problems.empty()) << "the scores may choose the seven layers without one";
}

TEST_F(JobCheck, variants_are_of_the_mixer) {
    job_ = parse_job("student: {mixer: gated_linear_attention}\nexport: {formats: [fla]}\n", "job.yaml");
    SetUp();
    job_.export_to.formats = {"fla"};
    EXPECT_TRUE(contains(problem(), "set student.variant: gla_v1"));
    job_.student = parse_job("student: {variant: gla_v1}\n", "job.yaml").student;
    EXPECT_TRUE(check().problems.empty());
    job_.export_to.formats = {"qwen3_5"};
    EXPECT_TRUE(contains(problem(), "the linear layers are gated_linear_attention"));
}

}  // namespace
}  // namespace amalgam
