// SPDX-License-Identifier: Apache-2.0
#include "job/input_check.h"

#include <filesystem>

#include "job/student_spec.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

class InputCheck {
  public:
    InputCheck(const Job& job, Findings& findings) : job_(job), findings_(findings) {}

    void all() {
        const fs::path teacher = job_.teacher.path;
        if (teacher.empty()) {
            findings_.problem_if(
                true, "teacher.path is not given (there is nothing to convert) name a Hugging Face model folder");
        } else if (std::error_code unreadable; !fs::is_directory(teacher, unreadable)) {
            findings_.problem_if(true, "teacher.path: ", teacher.string(), " is not a folder", relative_hint(teacher));
        } else {
            findings_.problem_if(
                !is_there(teacher / "config.json"), "teacher.path: ", teacher.string(),
                " has no config.json (sizes are unknown without it) is it a Hugging Face model folder?");
            bool has_weights = false;
            std::error_code failed;
            for (fs::directory_iterator entry(teacher, failed), end; !failed && entry != end; entry.increment(failed))
                has_weights = has_weights || entry->path().extension() == ".safetensors";
            findings_.problem_if(bool(failed), "teacher.path: ", teacher.string(), " cannot be read (",
                                 failed.message(), ") look at its permissions");
            findings_.problem_if(
                !failed && !has_weights, "teacher.path: ", teacher.string(),
                " has no *.safetensors (other weight formats are not read) download or convert the weights");
            findings_.problem_if(
                fs::equivalent(teacher, job_.run_folder(), unreadable), "teacher.path: ", teacher.string(),
                " is the run folder (results would be written among the teacher's files) choose another name");
            findings_.note_if(!is_there(teacher / "tokenizer.json"), "teacher.path: ", teacher.string(),
                              " has no tokenizer.json; the exported student will come without a tokenizer");
        }
        check_token_file("data.training", job_.data.training);
        check_token_file("data.validation", job_.data.validation);
        check_requests();
        const std::string start = start_of(job_.student);
        findings_.problem_if(!start.empty() && !is_file(start), "student.start: ", start,
                             " is not a file (it names the checkpoint of a trained student)", relative_hint(start));
        findings_.problem_if(job_.evaluate.recall.questions > 0 && job_.evaluate.sequences == 0,
                             "evaluate.recall.questions is ", job_.evaluate.recall.questions,
                             " but evaluate.sequences is 0 (the stage would be skipped) give at least 1");
        findings_.problem_if(
            !job_.data.training.empty() && job_.data.training == job_.data.validation,
            "data.validation is the training file (scores must come from tokens never trained on) give another");
    }

  private:
    void check_requests() {
        const std::string& path = job_.evaluate.requests;
        if (path.empty()) return;
        findings_.problem_if(!is_file(path), "evaluate.requests: ", path, " is not a file", relative_hint(path));
        findings_.problem_if(
            job_.evaluate.sequences == 0,
            "evaluate.requests is given but evaluate.sequences is 0 (the stage would be skipped) give at least 1");
    }

    void check_token_file(const std::string& key, const std::string& path) {
        if (path.empty())
            findings_.problem_if(true, key, " is not given (nothing to train or measure on) name an HDF5 token file");
        else
            findings_.problem_if(!is_file(path), key, ": ", path, " is not a file", relative_hint(path));
    }

    /// What cannot be looked at (permissions) is not there.
    static bool is_there(const fs::path& path) {
        std::error_code unreadable;
        return fs::exists(path, unreadable);
    }
    static bool is_file(const fs::path& path) {
        std::error_code unreadable;
        return fs::is_regular_file(path, unreadable);
    }

    static std::string relative_hint(const fs::path& path) {
        if (path.is_absolute()) return " (the run needs it) check the path";
        return text(" (relative paths mean the current directory, now ", fs::current_path().string(),
                    ") check the path");
    }

    const Job& job_;
    Findings& findings_;
};

}  // namespace

void check_inputs(const Job& job, Findings& findings) {
    InputCheck(job, findings).all();
}

}  // namespace amalgam
