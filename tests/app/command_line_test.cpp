// SPDX-License-Identifier: Apache-2.0
// The commands that need no model, and exit statuses.
#include "../stages/small_run.h"
#include "job/job_reader.h"
#include "operations/products.h"

namespace amalgam {
namespace {

using test::expect_end;

class CommandLine : public test::SmallRun {
  protected:
    static test::Finished amalgam(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), AMALGAM_PROGRAM);
        return test::Process(arguments).wait(30.0);
    }
};

TEST_F(CommandLine, help_and_version) {
    expect_end(amalgam({"--help"}), 0, {"run", "check", "defaults", "inspect", "logits", "generate", "export"});
    expect_end(amalgam({"--version"}), 0, {"amalgam 0."});
}

TEST_F(CommandLine, mistakes_are_bad_input) {
    expect_end(amalgam({}), 2, {"subcommand"});
    expect_end(amalgam({"convert"}), 2, {"subcommand"});
    expect_end(amalgam({"run"}), 2, {"job"});
    expect_end(amalgam({"inspect", "a.h5", "--colour"}), 2, {"--colour"});
}

TEST_F(CommandLine, numbers_out_of_range_are_told_in_a_line) {
    for (const auto& [option, value, range] : {std::tuple("--ranks", "0", "at least 1"),
                                               {"--gpu-memory", "-1", "at least 0"},
                                               {"--utilisation", "2", "at least 0 and at most 1"},
                                               {"--node-bandwidth", "0", "above 0"}}) {
        const auto finished = amalgam({"check", job_file().string(), option, value});
        expect_end(finished, 2, {text(option, ": must be ", range, ", not ", value)});
        EXPECT_LT(finished.output.size(), 200U) << finished.output;
    }
}

TEST_F(CommandLine, defaults_are_a_job_file) {
    const auto finished = amalgam({"defaults"});
    expect_end(finished, 0, {"teacher:", "tokens: 0"});
    EXPECT_EQ(to_yaml(parse_job(finished.output, "defaults")), to_yaml(Job()));
}

TEST_F(CommandLine, run_folder_is_that_of_the_job_and_nothing_else_is_printed) {
    const std::string path = job_file().string();
    EXPECT_EQ(amalgam({"run-folder", path}).output, job.run_folder() + "\n");
    setenv("AMALGAM_TEST_RUNS", "/scratch", 1);
    EXPECT_EQ(amalgam({"run-folder", path, "--set", "output=$AMALGAM_TEST_RUNS/a b", "--set", "name=b"}).output,
              "/scratch/a b/b\n");
    unsetenv("AMALGAM_TEST_RUNS");
    expect_end(amalgam({"run-folder", path, "--set", "output=$AMALGAM_TEST_RUNS"}), 2, {"AMALGAM_TEST_RUNS"});
}

TEST_F(CommandLine, check_accepts_a_good_job_and_starts_nothing) {
    expect_end(amalgam({"check", job_file().string(), "--ranks", "3"}), 0, {"align", "score", "distill"});
    EXPECT_FALSE(std::filesystem::exists(job.output));
}

/// What a start would refuse at once.
TEST_F(CommandLine, check_looks_at_the_run_folder_and_at_what_the_job_takes_from_other_runs) {
    job.align.tokens = job.score.tokens = job.evaluate.sequences = 0;
    job.select.rule = "uniform";
    expect_end(run(1), 0, {});
    const auto before = results();
    const std::string record = test::content_of(result("job.yaml")), first = run_folder().string();
    const auto check = [&](const Job& checked, int status, const std::vector<std::string>& parts) {
        const auto file = folder / "checked.yaml";
        test::put(file, to_yaml(checked));
        expect_end(amalgam({"check", file.string()}), status, parts);
    };
    check(job, 0, {"distill"});
    Job other = job;
    other.seed = 5;
    check(other, 2, {first, "another job", "seed: was 0, now 5", "1 problem above"});
    other.name = "second";
    check(other, 0, {});
    other.reuse = first;
    check(other, 2, {"reuse: " + first, "was made by another job", "seed: was 0, now 5"});
    other.reuse = "";
    other.student =
        parse_job("student: {variant: kda_v1, start: " + first + "/checkpoints/transfer.h5}", "a.yaml").student;
    check(other, 2, {"checkpoints/transfer.h5: layers of kimi_delta_attention cannot start from it"});
    EXPECT_EQ(results(), before);
    EXPECT_EQ(test::content_of(result("job.yaml")), record);
    EXPECT_FALSE(std::filesystem::exists(other.run_folder()));
    std::filesystem::remove(job.data.training);
    test::write_tokens(job.data.training, test::simple_text(60 * test::small_length, test::small_vocabulary, 3),
                       test::small_vocabulary);
    check(job, 2, {"inputs have changed since results were made of them", "data.training: train.h5"});
}

TEST_F(CommandLine, check_speaks_for_the_machine_where_it_runs) {
    const std::string path = job_file().string();
    expect_end(amalgam({"check", path, "--ranks", "2"}), 0,
               {"float32, for the CPU of this machine", "measured just now"});
    expect_end(amalgam({"check", path, "--set", "device=auto", "--gpu-memory", "80"}), 0,
               {"by its data sheet", "--device NAME"});
    expect_end(amalgam({"check", path, "--device", "a100"}), 0, {"one A100 a rank", "19.5 Tflop/s peak at 35 %"});
    expect_end(amalgam({"check", path, "--device", "A100", "--set", "precision=bfloat16", "--peak", "100"}), 0,
               {"100 Tflop/s peak"});
    expect_end(amalgam({"check", path, "--device", "tpu"}), 2, {"--device: \"tpu\" is not known", "H100"});
}

TEST_F(CommandLine, check_knows_what_the_cpu_is_fast_in) {
    const std::string path = job_file().string();
    setenv("AMALGAM_ISA", "reference", 1);  // what a CPU without bf16 instructions is to the program
    const auto automatic = amalgam({"check", path, "--set", "precision=auto"}),
               named = amalgam({"check", path, "--set", "precision=bfloat16"});
    unsetenv("AMALGAM_ISA");
    expect_end(automatic, 0, {"float32, for the CPU"});
    EXPECT_EQ(automatic.output.find("without bf16 instructions"), std::string::npos) << automatic.output;
    expect_end(named, 0, {"bfloat16, for the CPU", "on a CPU without bf16 instructions", "Gflop/s, float32's own "});
    expect_end(amalgam({"check", path, "--set", "precision=auto"}), 0,
               {cpu_multiplies_bfloat16() ? "bfloat16, for the CPU" : "float32, for the CPU"});
}

TEST_F(CommandLine, check_refuses_what_cannot_run) {
    expect_end(amalgam({"check", job_file().string(), "--ranks", "4"}), 2, {"align.batch_sequences is 6", "4 ranks"});
    expect_end(amalgam({"check", job_file().string(), "--set", "evaluate.sequences=1000"}), 2,
               {"evaluate.sequences is 1000", "the job cannot run (1 problem above)"});
    expect_end(amalgam({"check", (folder / "none.yaml").string()}), 2, {"none.yaml"});
    std::filesystem::resize_file(folder / "train.h5", 100);
    expect_end(amalgam({"check", job_file().string()}), 2, {(folder / "train.h5").string()});
}

TEST_F(CommandLine, unknown_keys_are_errors_with_a_suggestion) {
    expect_end(amalgam({"check", job_file().string(), "--set", "align.tokes=5"}), 2, {"align.tokes", "align.tokens"});
    test::put(folder / "bad.yaml", "align:\n    tokns: 3\n");
    expect_end(amalgam({"run", (folder / "bad.yaml").string()}), 2, {"bad.yaml", "tokns", "tokens"});
}

TEST_F(CommandLine, run_refuses_what_check_refuses) {
    job.align.tokens = 5;
    expect_end(run(2), 2, {"align.tokens is 5"});
    EXPECT_FALSE(std::filesystem::exists(job.output));
}

TEST_F(CommandLine, overrides_win_over_the_file) {
    const auto path = job_file().string();
    expect_end(amalgam({"run", path, "--set", "name=other", "--set", "score.tokens=0", "--set",
                        "select.rule=all_linear", "--set", "evaluate.sequences=0"}),
               0, {"gated_delta_net x 4"});
    EXPECT_TRUE(std::filesystem::exists(folder / "outputs" / "other" / "checkpoints" / "distill.h5"));
    EXPECT_FALSE(std::filesystem::exists(run_folder()));
}

}  // namespace
}  // namespace amalgam
