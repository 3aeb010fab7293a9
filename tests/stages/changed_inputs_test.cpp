// SPDX-License-Identifier: Apache-2.0
// P13: nothing is made of inputs that have changed under a run. Here the run's folder is opened as each start opens it.
#include "../selection/made_up_scores.h"
#include "job/job_reader.h"
#include "small_run.h"
#include "stages/reuse.h"
#include "stages/run_folder.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

class ChangedInputs : public test::SmallRun {
  protected:
    const fs::path weights = folder / "teacher" / "model.safetensors", config = folder / "teacher" / "config.json";

    /// What a run leaves; only names count here.
    void leave(std::initializer_list<const char*> files) {
        open_run_folder(job);
        for (const char* file : files) {
            fs::create_directories(result(file).parent_path());
            test::put(result(file), "a result");
        }
    }
    void expect_refused(std::initializer_list<std::string> parts) {
        const std::string inputs = test::content_of(result("inputs.json"));
        expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, parts);
        EXPECT_EQ(test::content_of(result("inputs.json")), inputs);
    }
    /// The same size, one bit is another one.
    static void flip_last_byte(const fs::path& file) {
        std::string content = test::content_of(file);
        content.back() = char(content.back() ^ 1);
        test::put(file, content);
    }
};

TEST_F(ChangedInputs, of_the_teacher_are_refused_and_named) {
    leave({"checkpoints/transfer.h5"});
    const std::string good = test::content_of(weights);
    flip_last_byte(weights);
    expect_refused({run_folder().string(), "teacher.path: model.safetensors: was ", "another name"});
    test::put(weights, good);
    EXPECT_NO_THROW(open_run_folder(job)) << "it was restored";
    test::put(config, test::content_of(config) + " ");
    expect_refused({"teacher.path: config.json", "bytes"});
}

TEST_F(ChangedInputs, copies_are_no_changes) {
    leave({"checkpoints/transfer.h5", "evaluation.h5"});
    for (const fs::path& file : {weights, config, folder / "train.h5", folder / "validation.h5"}) {
        fs::copy_file(file, folder / "copy");
        fs::remove(file);
        fs::rename(folder / "copy", file);
        fs::last_write_time(file, fs::file_time_type::clock::now() + std::chrono::hours(5));
    }
    EXPECT_NO_THROW(open_run_folder(job));
}

TEST_F(ChangedInputs, other_paths_to_the_same_files_are_no_changes) {
    job.evaluate.requests = (folder / "requests.h5").string();
    test::put(job.evaluate.requests, "some");
    const fs::path trained = folder / "trained.h5";
    test::put(trained, "a student");
    job.student = parse_job("student: {variant: kda_v1, start: " + trained.string() + "}", "job.yaml").student;
    leave({"checkpoints/distill.h5", "evaluation.h5", "student/config.json"});
    fs::create_directory_symlink(folder / "teacher", folder / "link");
    fs::create_symlink(folder / "train.h5", folder / "linked.h5");
    fs::copy_file(folder / "validation.h5", folder / "copied.h5");
    fs::rename(trained, folder / "moved.h5");
    job.teacher.path = (folder / "link").string() + "/./";
    job.data.training = (folder / "linked.h5").string();
    job.data.validation = (folder / "teacher" / ".." / "copied.h5").string();
    job.evaluate.requests = fs::relative(job.evaluate.requests).string();
    job.student.options["start"] = (folder / "moved.h5").string();
    EXPECT_NO_THROW(open_run_folder(job));
    EXPECT_NE(test::content_of(result("job.yaml")).find("linked.h5"), std::string::npos) << "what was run last";
    fs::remove(result("evaluation.h5"));  // no file for reuse to read
    Job second = job;
    second.name = "second";
    second.reuse = run_folder().string();
    second.data.training = (folder / "train.h5").string();
    second.data.validation = (folder / "validation.h5").string();
    test::put(result("checkpoints/transfer.h5"), "transferred");
    EXPECT_NO_THROW(open_run_folder(second));
}

/// Another path to other content is another job, and is called by its path.
TEST_F(ChangedInputs, other_files_are_refused_by_their_paths) {
    leave({"checkpoints/transfer.h5", "checkpoints/align.h5"});
    const Job good = job;
    fs::copy_file(folder / "train.h5", folder / "other.h5");
    flip_last_byte(folder / "other.h5");
    job.data.training = (folder / "other.h5").string();
    expect_refused({"another job", "data.training: was", "train.h5", "now", "other.h5"});
    job = good;
    job.data.validation = (folder / "other.h5").string();
    EXPECT_NO_THROW(open_run_folder(job)) << "nothing was measured yet";
    job.evaluate.requests = (folder / "other.h5").string();
    leave({"evaluation.h5"});
    job.evaluate.requests = "";
    expect_refused({"evaluate.requests: was", "now \"\""});
    job = good;
    job.name = "second";
    job.reuse = run_folder().parent_path() / good.name;
    job.data.training = (folder / "other.h5").string();
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, {"reuse: " + job.reuse, "data.training: was"});
    // Of an earlier version it is not known what the files held.
    job = good;
    fs::remove(result("inputs.json"));
    const std::string yaml = test::content_of(result("job.yaml"));
    test::put(result("job.yaml"), yaml.substr(0, yaml.rfind("# SHA-256")));
    job.teacher.path += "/";
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, {"teacher.path"});
}

TEST_F(ChangedInputs, of_the_corpora_are_refused_once_something_was_made_of_them) {
    leave({"checkpoints/transfer.h5"});
    flip_last_byte(folder / "train.h5");
    EXPECT_NO_THROW(open_run_folder(job)) << "nothing was trained yet: a broken corpus may be mended";
    leave({"checkpoints/align-00000002.h5"});
    flip_last_byte(folder / "validation.h5");
    EXPECT_NO_THROW(open_run_folder(job)) << "nothing was measured yet";
    flip_last_byte(folder / "train.h5");
    expect_refused({"data.training: train.h5"});
    flip_last_byte(folder / "train.h5");
    leave({"candidates/candidate-000.h5"});
    flip_last_byte(folder / "validation.h5");
    expect_refused({"data.validation: validation.h5"});
}

TEST_F(ChangedInputs, of_the_wording_of_questions_are_refused_once_they_were_trained_on) {
    job.align.question_fraction = 0.1;
    leave({"checkpoints/transfer.h5"});
    flip_last_byte(folder / "validation.h5");
    EXPECT_NO_THROW(open_run_folder(job));
    leave({"checkpoints/align-00000002.h5"});
    flip_last_byte(folder / "validation.h5");
    expect_refused({"data.validation: validation.h5"});
}

TEST_F(ChangedInputs, of_requests_and_of_texts_are_refused_once_they_were_used) {
    job.evaluate.requests = (folder / "requests.h5").string();
    const fs::path settings = folder / "teacher" / "tokenizer_config.json";
    test::put(job.evaluate.requests, "some");
    test::put(settings, "{}");
    leave({"checkpoints/distill.h5"});
    test::put(job.evaluate.requests, "others");
    test::put(settings, "{ }");
    EXPECT_NO_THROW(open_run_folder(job)) << "an export that was refused for them can be tried again";
    leave({"evaluation.h5"});
    test::put(job.evaluate.requests, "more");
    expect_refused({"evaluate.requests: requests.h5"});
    test::put(job.evaluate.requests, "others");
    leave({"student/config.json"});
    fs::remove(settings);
    expect_refused({"tokenizer_config.json", "not there any more"});
}

TEST_F(ChangedInputs, of_a_student_to_start_from_are_refused_once_weights_were_made_of_it) {
    const fs::path trained = folder / "trained.h5";
    test::put(trained, "some");
    job.student = parse_job("student: {variant: kda_v1, start: " + trained.string() + "}", "job.yaml").student;
    open_run_folder(job);
    test::put(trained, "others");
    EXPECT_NO_THROW(open_run_folder(job));
    leave({"checkpoints/transfer.h5"});
    test::put(trained, "more");
    expect_refused({"student.start: trained.h5"});
}

/// Runs of earlier versions do not say what they were made from; those of this one do, and say it whole.
TEST_F(ChangedInputs, are_not_known_of_earlier_versions_and_a_damaged_list_is_damage) {
    leave({"checkpoints/transfer.h5"});
    const std::string yaml = test::content_of(result("job.yaml")), list = test::content_of(result("inputs.json"));
    test::put(result("inputs.json"), list.substr(0, list.size() / 2));
    expect_error([&] { open_run_folder(job); }, ExitCode::damaged_file, {result("inputs.json").string()});
    fs::remove(result("inputs.json"));
    test::put(result("job.yaml"), yaml.substr(0, yaml.rfind("# SHA-256")));
    EXPECT_NO_THROW(open_run_folder(job));
    EXPECT_EQ(test::content_of(result("inputs.json")), list) << "from now on they are known";
}

/// A part of it would be another job.
TEST_F(ChangedInputs, the_record_of_the_job_is_whole_or_damaged) {
    leave({"checkpoints/transfer.h5"});
    const fs::path record = result("job.yaml");
    const std::string good = test::content_of(record);
    std::string edited = good;
    edited.replace(edited.find("seed: 0"), 7, "seed: 1");
    for (const std::string& bad : {std::string(), good.substr(0, good.size() / 2), good.substr(0, good.size() - 1),
                                   std::string(good.size(), '\0'), edited}) {
        test::put(record, bad);
        expect_error([&] { open_run_folder(job); }, ExitCode::damaged_file, {record.string(), "damaged"});
    }
    test::put(record, good);
    EXPECT_NO_THROW(open_run_folder(job));
}

class ChangedInputsOfReuse : public ChangedInputs {
  protected:
    void SetUp() override {
        leave({"checkpoints/transfer.h5", "checkpoints/align.h5"});
        write_scores(result("scores.h5"), test::made_up_scores(test::small_layers, {0, 1, 2, 3}), Provenance{});
        job.reuse = run_folder().string();
        job.name = "second";
    }
    void expect_refused(std::initializer_list<std::string> parts) {
        expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, parts);
        EXPECT_FALSE(fs::exists(result("checkpoints/transfer.h5")));
    }
};

TEST_F(ChangedInputsOfReuse, are_refused_and_named) {
    const std::string good = test::content_of(weights);
    flip_last_byte(weights);
    expect_refused({"reuse: " + job.reuse, "teacher.path: model.safetensors"});
    test::put(weights, good);
    flip_last_byte(folder / "train.h5");
    expect_refused({"reuse: " + job.reuse, "data.training: train.h5"});
    flip_last_byte(folder / "train.h5");
    EXPECT_NO_THROW(open_run_folder(job));
    EXPECT_TRUE(fs::exists(result("scores.h5")));
}

TEST_F(ChangedInputsOfReuse, of_the_validation_leave_the_alignment) {
    flip_last_byte(folder / "validation.h5");
    open_run_folder(job);
    EXPECT_TRUE(fs::exists(result("checkpoints/align.h5")));
    EXPECT_FALSE(fs::exists(result("scores.h5"))) << "they were measured on other sequences";
}

TEST_F(ChangedInputsOfReuse, what_is_no_run_or_has_nothing_is_said_before_the_start) {
    EXPECT_EQ(reuse_problem(job), "");
    fs::remove(fs::path(job.reuse) / "checkpoints/transfer.h5");
    EXPECT_NE(reuse_problem(job).find("has not finished its first stage"), std::string::npos);
    job.reuse = (folder / "teacher").string();
    EXPECT_NE(reuse_problem(job).find("holds no run"), std::string::npos) << reuse_problem(job);
    job.reuse = (folder / "nowhere").string();
    EXPECT_NE(reuse_problem(job).find("is not a folder"), std::string::npos) << reuse_problem(job);
    job.reuse = "";
    EXPECT_EQ(reuse_problem(job), "");
}

}  // namespace
}  // namespace amalgam
