// SPDX-License-Identifier: Apache-2.0
#include "app/job_inputs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "evaluation/recall_questions.h"
#include "evaluation/requests.h"
#include "specification/hugging_face_config.h"
#include "stages/run_folder.h"
#include "stages/training_stage.h"
#include "storage/safetensors.h"
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

}  // namespace

JobInputs look_at_inputs(const Job& job) {
    JobInputs inputs;
    // Files that are not there are check_job's to report.
    auto look = [&](const std::string& path, auto work) {
        if (path.empty() || !std::filesystem::exists(path)) return;
        try {
            work();
        } catch (const Error& error) {
            inputs.problems.push_back(error.what());
        }
    };
    look(job.teacher.path, [&] {
        inputs.teacher = read_config(job.teacher.path);
        read_safetensors_folder(job.teacher.path);
    });
    if (const std::string problem = reuse_problem(job); !problem.empty()) inputs.problems.push_back(problem);
    TokenCounts counts;
    bool complete = true;
    std::string tokenizer = tokenizer_sha256(job.teacher.path), place = "the teacher's tokenizer.json";
    struct Corpus {
        const char* key;
        const std::string& path;
        int64_t& count;
    };
    for (const auto& [key, path, count] : {Corpus{"data.training", job.data.training, counts.training},
                                           Corpus{"data.validation", job.data.validation, counts.validation}}) {
        const size_t problems = inputs.problems.size();
        look(path, [&, key = key, &path = path, &count = count] {
            const TokenFile file(path);
            count = file.size();
            counts.vocabulary_size = std::max(counts.vocabulary_size, file.vocabulary_size());
            if (job.data.allow_other_tokenizer) return;
            expect_same_tokenizer(key, path, file.tokenizer_sha256(), tokenizer, place);
            if (!tokenizer.empty()) return;
            tokenizer = file.tokenizer_sha256();  // a teacher without tokenizer: at least both files have the same
            place = path;
        });
        complete = complete && count > 0 && inputs.problems.size() == problems;
    }
    look(job.evaluate.requests, [&] {
        const RequestFile requests(job.evaluate.requests);
        require(!inputs.teacher || requests.vocabulary_size() <= inputs.teacher->vocabulary_size,
                "evaluate.requests: ", job.evaluate.requests, " was made with a tokenizer of ",
                requests.vocabulary_size(), " tokens (the teacher knows ", inputs.teacher->vocabulary_size,
                ") export it again");
        if (!job.data.allow_other_tokenizer)
            expect_same_tokenizer("evaluate.requests", job.evaluate.requests, requests.tokenizer_sha256(), tokenizer,
                                  place);
    });
    if (job.evaluate.recall.questions > 0)
        look(job.data.validation, [&] {
            const TokenFile text(job.data.validation);
            RecallQuestions(job.evaluate.recall, read_recall_wording(job.data.validation), text);
        });
    if (complete) inputs.counts = counts;
    return inputs;
}

}  // namespace amalgam
