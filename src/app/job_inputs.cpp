// SPDX-License-Identifier: Apache-2.0
#include "app/job_inputs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "checkpoints/checkpoint.h"
#include "evaluation/held_out.h"
#include "evaluation/requests.h"
#include "exports/tokenizer_files.h"
#include "job/student_spec.h"
#include "job/training_plan.h"
#include "model/teacher_folder.h"
#include "model/transfer.h"
#include "questions/question_sequences.h"
#include "questions/recall_questions.h"
#include "specification/hugging_face_config.h"
#include "stages/reuse.h"
#include "stages/training_stage.h"
#include "storage/token_file.h"
#include "system/error.h"
#include "system/sha256.h"

namespace amalgam {

namespace {

/// SHA-256 of a model folder's tokenizer.json; empty if there is none.
std::string tokenizer_sha256(const std::filesystem::path& folder) {
    std::ifstream stream(folder / "tokenizer.json", std::ios::binary);
    if (!stream) return "";
    return sha256(std::string(std::istreambuf_iterator<char>(stream), {}));
}

/// Tokens mean something else to a teacher of another tokenizer. What is no digest (files made by hand) is not judged.
void expect_same_tokenizer(const std::string& key, const std::string& path, const std::string& tokenizer,
                           const std::string& other, const std::string& others_place) {
    if (tokenizer.size() != 64 || other.size() != 64) return;
    require(tokenizer == other, key, ": ", path, " was made with the tokenizer of SHA-256 ", tokenizer.substr(0, 12),
            "..., but ", others_place, " has ", other.substr(0, 12),
            "... (the same numbers would be other words) tokenise the text again with inputs/tokenise.py and the "
            "teacher's folder, or set data.allow_other_tokenizer: true");
}

constexpr int64_t tokens_at_a_time = 1 << 20;

/// Tokens that the teacher must know for this file: those of its tokenizer or, where these are more, those that occur.
/// A tokenizer may have more than its model, for padding, as long as no text has them.
int64_t needed_vocabulary(const std::string& key, const TokenFile& file, JobInputs& inputs) {
    if (!inputs.teacher || file.vocabulary_size() <= inputs.teacher->vocabulary_size) return file.vocabulary_size();
    std::vector<int64_t> tokens;
    int64_t largest = 0;
    for (int64_t first = 0; first < file.size(); first += tokens_at_a_time) {
        tokens.resize(size_t(std::min(tokens_at_a_time, file.size() - first)));
        file.read(first, tokens);
        largest = std::max(largest, *std::max_element(tokens.begin(), tokens.end()));
    }
    if (largest < inputs.teacher->vocabulary_size)
        inputs.notes.push_back(text(key, ": the tokenizer has ", file.vocabulary_size(),
                                    " tokens and the teacher knows ", inputs.teacher->vocabulary_size,
                                    ", but the largest in the file is ", largest));
    return largest + 1;
}

/// The same tokens under another name, in another file or through a link are still the training tokens.
void expect_other_tokens(const std::string& training, const std::string& validation) {
    const char* why = " (scores must come from tokens never trained on) give another";
    require(!std::filesystem::equivalent(training, validation), "data.validation: ", validation,
            " is the file of data.training, ", training, why);
    const TokenFile first(training), second(validation);
    if (first.size() != second.size() || first.size() == 0) return;
    std::vector<int64_t> left, right;
    for (int64_t done = 0; done < first.size(); done += tokens_at_a_time) {
        left.resize(size_t(std::min(tokens_at_a_time, first.size() - done)));
        right.resize(left.size());
        first.read(done, left);
        second.read(done, right);
        if (left != right) return;
    }
    throw Error(text("data.validation: ", validation, " holds the tokens of data.training, ", training, why),
                ExitCode::bad_input);
}

}  // namespace

JobInputs look_at_inputs(const Job& job) {
    JobInputs inputs;
    // Files that are not there are check_job's to report.
    auto look = [&](const std::string& path, auto work) {
        std::error_code unreadable;
        if (path.empty() || !std::filesystem::exists(path, unreadable)) return;
        try {
            work();
        } catch (const Error& error) {
            inputs.problems.push_back(error.what());
        } catch (const std::filesystem::filesystem_error& error) {
            inputs.problems.push_back(text(error.path1().string(), ": cannot be read (", error.code().message(), ")"));
        }
    };
    look(job.teacher.path, [&] {
        inputs.teacher = read_config(job.teacher.path);  // of use even where the weights are not
        const TeacherFolder teacher = read_teacher_folder(job.teacher.path);
        inputs.teacher = teacher.config;
        inputs.notes = teacher.notes;
    });
    if (const std::string problem = reuse_problem(job); !problem.empty()) inputs.problems.push_back(problem);
    if (!job.export_to.formats.empty()) look(job.teacher.path, [&] { expect_tokenizer_files(job.teacher.path); });
    TokenCounts counts;
    bool complete = true;
    std::string tokenizer = tokenizer_sha256(job.teacher.path), place = "the teacher's tokenizer.json";
    struct Corpus {
        const char* key;
        const std::string& path;
        int64_t &count, &documents;
    };
    for (const auto& [key, path, count, documents] :
         {Corpus{"data.training", job.data.training, counts.training, counts.training_documents},
          Corpus{"data.validation", job.data.validation, counts.validation, counts.validation_documents}}) {
        const size_t problems = inputs.problems.size();
        look(path, [&, key = key, &path = path, &count = count, &documents = documents] {
            const TokenFile file(path);
            count = file.size();
            documents = file.documents();
            counts.vocabulary_size = std::max(counts.vocabulary_size, needed_vocabulary(key, file, inputs));
            if (job.data.allow_other_tokenizer) return;
            expect_same_tokenizer(key, path, file.tokenizer_sha256(), tokenizer, place);
            if (!tokenizer.empty()) return;
            tokenizer = file.tokenizer_sha256();  // a teacher without tokenizer: at least both files have the same
            place = path;
        });
        complete = complete && std::filesystem::is_regular_file(path) && inputs.problems.size() == problems;
    }
    if (complete && job.data.training != job.data.validation)
        look(job.data.validation, [&] { expect_other_tokens(job.data.training, job.data.validation); });
    look(job.evaluate.requests, [&] {
        const RequestFile requests(job.evaluate.requests);
        require(!inputs.teacher || requests.largest_token() < inputs.teacher->vocabulary_size,
                "evaluate.requests: ", job.evaluate.requests, " holds token ", requests.largest_token(),
                " (the teacher knows ", inputs.teacher->vocabulary_size,
                " tokens) export it again with the teacher's tokenizer");
        if (!job.data.allow_other_tokenizer)
            expect_same_tokenizer("evaluate.requests", job.evaluate.requests, requests.tokenizer_sha256(), tokenizer,
                                  place);
        inputs.requests = count_requests(requests, inputs.teacher.value_or(ModelConfig{}));
    });
    if (job.data.documents == DocumentBorders::separate && job.evaluate.sequences > 0)
        look(job.data.validation, [&] {
            const TokenFile file(job.data.validation);
            if (file.sequences(job.evaluate.sequence_length) < job.evaluate.sequences) return;  // check_job's to report
            read_held_out(file, job.evaluate.sequences, job.evaluate.sequence_length, job.data.documents);
        });
    const std::string start = start_of(job.student);
    look(start, [&] {
        const Checkpoint trained(start);
        if (!inputs.teacher) return;
        const Layout layout = all_linear(inputs.teacher->layers, job.student.mixer);
        find_start(student_spec(job.student, *inputs.teacher, layout), trained.spec(), trained.where());
    });
    const Scorer* scorer = selection_rule(job.select.rule).scorer;
    const bool asks_candidates = scorer != nullptr && !scorer->distils && job.score.recall.questions > 0;
    const auto ask = [&](const std::string& section, const RecallJob& recall, const std::string& of,
                         const std::string& key) {
        look(of, [&] {
            const TokenFile text(of);
            RecallQuestions(recall, read_recall_wording(job.data.validation, recall, section), text, section, key);
        });
    };
    const auto ask_of_validation = [&](const std::string& section, const RecallJob& recall) {
        ask(section, recall, job.data.validation, "data.validation");
    };
    if (job.evaluate.recall.questions > 0) ask_of_validation("evaluate.recall", job.evaluate.recall);
    if (asks_candidates) ask_of_validation("score.recall", job.score.recall);
    if (asks_candidates && gates_are_trained(job))
        ask("score.recall", job.score.recall, job.data.training, "data.training");
    const auto train_on_questions = [&](const std::string& stage, const TrainingJob& training) {
        if (!trains_on_questions(training)) return;
        look(job.data.training, [&] {
            const TokenFile text(job.data.training);
            const auto wording =
                read_recall_wording(job.data.validation, training.question_kinds, QuestionKeys::of_training(stage));
            QuestionSequences(training, wording, text, uint64_t(job.seed), stage);
        });
    };
    train_on_questions("align", job.align);
    if (candidates_are_trained(job)) train_on_questions("score", job.score);
    train_on_questions("distill", job.distill);
    train_on_questions("finetune", job.finetune);
    if (complete) inputs.counts = counts;
    return inputs;
}

}  // namespace amalgam
