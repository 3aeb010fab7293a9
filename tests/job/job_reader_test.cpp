// SPDX-License-Identifier: Apache-2.0
#include "job/job_reader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "error_text.h"
#include "job/job_writer.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::string problem(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
    return error_text([&] { parse_job(yaml, "job.yaml", overrides); });
}

TEST(JobReader, empty_file_gives_defaults) {
    for (const std::string yaml : {"", "# nothing\n", "---\n", "align:\nscore:\n"}) {
        const Job job = parse_job(yaml, "job.yaml");
        EXPECT_EQ(job.name, "run");
        EXPECT_EQ(job.align.sequence_length, 512);
        EXPECT_FALSE(job.distill.optimizer.learning_rate_rest.has_value()) << "auto";
    }
}

TEST(JobReader, reads_every_type) {
    const Job job = parse_job(
        "name: my-run\nseed: 7\ndeterministic: true\nwalltime: 11:45:00\n"
        "align:\n  tokens: 1e8\n  optimizer: {learning_rate: 2e-3, gradient_clip: 0}\n"
        "select: {rule: explicit, layers: [5, 14], budget: 7}\n"
        "export: {formats: [fla, qwen3_5]}\n",
        "job.yaml");
    EXPECT_EQ(job.name, "my-run");
    EXPECT_EQ(job.seed, 7);
    EXPECT_TRUE(job.deterministic);
    EXPECT_EQ(job.walltime, "11:45:00");
    EXPECT_EQ(job.align.tokens, 100000000);
    EXPECT_EQ(job.align.optimizer.learning_rate, 2e-3);
    EXPECT_EQ(job.align.optimizer.gradient_clip, 0.0);
    EXPECT_EQ(option<std::vector<int64_t>>(job.select.options, "layers"), (std::vector<int64_t>{5, 14}));
    EXPECT_EQ(option<std::string>(job.select.options, "budget"), "7");
    EXPECT_EQ(job.export_to.formats, (std::vector<std::string>{"fla", "qwen3_5"}));
}

TEST(JobReader, unknown_key_names_line_and_nearest_key) {
    EXPECT_EQ(
        problem("name: a\nalign:\n  token: 5\n"),
        "job.yaml:3: unknown key \"align.token\" (its value would have no effect) did you mean \"align.tokens\"?");
    EXPECT_TRUE(contains(problem("algin:\n  tokens: 5\n"), "job.yaml:1: unknown key \"algin\""));
    EXPECT_TRUE(contains(problem("algin:\n  tokens: 5\n"), "did you mean \"align\"?"));
    EXPECT_TRUE(contains(problem("align: {learning_rate: 1}\n"), "did you mean \"align.optimizer.learning_rate\"?"));
    EXPECT_TRUE(contains(problem("score: {optimizer: {beta_1: 0.9}}\n"), "did you mean \"score.optimizer.beta1\"?"));
    EXPECT_TRUE(contains(problem("finetune: {temperature: 2}\n"), "unknown key \"finetune.temperature\""));
    const std::string far = problem("zzzzzzzzzzzz: 1\n");
    EXPECT_TRUE(contains(far, "the nearest known key is")) << far;
    EXPECT_TRUE(contains(far, "amalgam defaults")) << far;
}

TEST(JobReader, paths_are_expanded_from_the_environment) {
    setenv("AMALGAM_TEST_PLACE", "/somewhere", 1);
    setenv("HOME", "/home/me", 1);
    unsetenv("AMALGAM_TEST_NOWHERE");
    const Job job = parse_job(
        "name: $AMALGAM_TEST_PLACE\noutput: ~/\nteacher: {path: ~/models/x}\n"
        "data: {training: $AMALGAM_TEST_PLACE/a.h5, validation: \"${AMALGAM_TEST_PLACE}b.h5\"}\n",
        "job.yaml", {"evaluate.requests=/x/$AMALGAM_TEST_PLACE$"});
    EXPECT_EQ(job.output, "/home/me/");
    EXPECT_EQ(job.teacher.path, "/home/me/models/x");
    EXPECT_EQ(job.data.training, "/somewhere/a.h5");
    EXPECT_EQ(job.data.validation, "/somewhereb.h5");
    EXPECT_EQ(job.evaluate.requests, "/x//somewhere$");
    EXPECT_EQ(job.name, "$AMALGAM_TEST_PLACE") << "no path";

    const std::string unknown = problem("name: a\nteacher: {path: $AMALGAM_TEST_NOWHERE/x}\n");
    EXPECT_TRUE(contains(unknown, "job.yaml:2: \"teacher.path\"")) << unknown;
    EXPECT_TRUE(contains(unknown, "no AMALGAM_TEST_NOWHERE")) << unknown;
    EXPECT_TRUE(contains(problem("data: {training: ~you/x}\n"), "other users"));
    EXPECT_TRUE(contains(problem("data: {training: \"${AMALGAM_TEST_PLACE/x\"}\n"), "not followed"));
}

TEST(JobReader, a_path_that_is_there_as_written_stays) {
    const std::filesystem::path place = std::filesystem::path(testing::TempDir()) / "amalgam_$literal";
    std::filesystem::create_directories(place);
    EXPECT_EQ(parse_job("teacher: {path: \"" + place.string() + "\"}\n", "job.yaml").teacher.path, place.string());
    std::filesystem::remove(place);
    EXPECT_TRUE(contains(problem("teacher: {path: \"" + place.string() + "\"}\n"), "no literal"));
}

TEST(JobReader, a_byte_order_mark_is_no_part_of_the_first_key) {
    EXPECT_EQ(parse_job("\xef\xbb\xbfname: a\n", "job.yaml").name, "a");
}

TEST(JobReader, a_resolved_job_that_ends_too_early_is_damaged) {
    const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "amalgam_resolved.yaml";
    const auto code_of = [&](const std::string& yaml) {
        std::ofstream(file) << yaml;
        try {
            read_resolved_job(file);
            return ExitCode::success;
        } catch (const Error& error) {
            EXPECT_TRUE(contains(error.what(), file.string())) << error.what();
            return error.code();
        }
    };
    const std::string whole = to_yaml(Job());
    EXPECT_EQ(code_of(whole), ExitCode::success);
    for (const size_t length : {size_t(0), size_t(7), whole.size() / 2, whole.find("deadlines:")})
        EXPECT_EQ(code_of(whole.substr(0, length)), ExitCode::damaged_file) << "of " << length << " bytes";
    EXPECT_EQ(code_of("name: [\n"), ExitCode::damaged_file);
    std::string older = whole;  // of a version without this key
    const size_t line = older.find("spike_guard");
    older.erase(line, older.find('\n', line) + 1 - line);
    EXPECT_EQ(code_of(older), ExitCode::success);
    std::filesystem::remove(file);
}

TEST(JobReader, wrong_types_name_file_line_key_found_and_allowed) {
    EXPECT_EQ(problem("\nalign:\n    tokens: many\n"),
              "job.yaml:3: \"align.tokens\" is \"many\" (must be an integer, at least 0; unit: tokens)");
    EXPECT_EQ(problem("deterministic: maybe\n"), "job.yaml:1: \"deterministic\" is \"maybe\" (must be true or false)");
    EXPECT_EQ(problem("name: [a]\n"), "job.yaml:1: \"name\" is a list (must be a text)");
    EXPECT_EQ(problem("name:\n"), "job.yaml:1: \"name\" is empty (must be a text)");
    EXPECT_TRUE(contains(problem("align: {tokens: 1.5}\n"), "\"1.5\" (must be an integer"));
    EXPECT_TRUE(contains(problem("align: {tokens: 10 M}\n"), "\"10 M\" (must be an integer"));
    EXPECT_TRUE(contains(problem("align: {tokens: 99999999999999999999}\n"), "must be an integer"));
    EXPECT_TRUE(contains(problem("distill: {temperature: nan}\n"), "\"nan\" (must be a number, above 0)"));
    EXPECT_TRUE(contains(problem("select: {layers: [1, x]}\n"), "holds \"x\" (must be a list of integers"));
    EXPECT_TRUE(contains(problem("distill: {question_kinds: [text, foo]}\n"),
                         "\"distill.question_kinds\" holds \"foo\" (must be a list of texts, one of noise, text"));
    EXPECT_TRUE(contains(problem("align: 5\n"), "job.yaml:1: \"align\" is \"5\" but is a section"));
    EXPECT_TRUE(contains(problem("align: {tokens: {a: 1}}\n"), "\"align.tokens\" is a section (must be an integer"));
}

TEST(JobReader, wrong_ranges_are_errors) {
    EXPECT_TRUE(contains(problem("align: {tokens: -1}\n"), "\"-1\" (must be an integer, at least 0"));
    EXPECT_TRUE(contains(problem("align: {optimizer: {beta2: 1}}\n"), "at least 0 and below 1"));
    EXPECT_TRUE(contains(problem("distill: {question_fraction: 1}\n"), "at least 0 and below 1"));
    EXPECT_TRUE(contains(problem("align: {optimizer: {epsilon: 0}}\n"), "above 0"));
    EXPECT_TRUE(contains(problem("align: {optimizer: {schedule: cosin}}\n"),
                         "\"cosin\" (must be a text, one of constant, cosine, linear, warmup_stable_decay)"));
    EXPECT_TRUE(contains(problem("export: {formats: [gguf]}\n"), "one of qwen3_5, fla"));
    EXPECT_TRUE(contains(problem("select: {layers: [-3]}\n"), "at least 0"));
}

TEST(JobReader, duplicate_keys_are_errors) {
    EXPECT_EQ(problem("name: a\nseed: 1\nname: b\n"),
              "job.yaml:3: \"name\" is given twice, first in line 1 (only one of them can hold) remove one");
    EXPECT_TRUE(contains(problem("align:\n  tokens: 1\nscore:\nalign:\n  loss: norm\n"), "\"align\" is given twice"));
    EXPECT_TRUE(contains(problem("align:\n  tokens: 1\n  tokens: 1\n"), "\"align.tokens\" is given twice"));
}

TEST(JobReader, all_problems_at_once) {
    const std::string all = problem("nam: a\nseed: x\n", {"align.tokens=y"});
    EXPECT_TRUE(contains(all, "job.yaml:1:")) << all;
    EXPECT_TRUE(contains(all, "job.yaml:2:")) << all;
    EXPECT_TRUE(contains(all, "--set align.tokens=y: \"align.tokens\" is \"y\"")) << all;
}

TEST(JobReader, broken_yaml_names_the_line) {
    EXPECT_TRUE(contains(problem("name: a\n  seed: 2\n"), "job.yaml:2: not valid YAML"));
    EXPECT_TRUE(contains(problem("- a\n- b\n"), "job.yaml: is a list"));
    EXPECT_TRUE(contains(problem("name: a\n---\nname: b\n"), "2 YAML documents"));
}

TEST(JobReader, overrides_win_and_the_last_one_holds) {
    const Job job = parse_job("align: {tokens: 5}\nname: a\n", "job.yaml",
                              {"align.tokens=6", "align.tokens=7", "select.layers=[1, 2]", "select.budget=50%",
                               "walltime=01:00:00", "teacher.path=a: b", "name=x=y", "export.formats=[]"});
    EXPECT_EQ(job.align.tokens, 7);
    EXPECT_EQ(option<std::vector<int64_t>>(job.select.options, "layers"), (std::vector<int64_t>{1, 2}));
    EXPECT_EQ(option<std::string>(job.select.options, "budget"), "50%");
    EXPECT_EQ(job.walltime, "01:00:00");
    EXPECT_EQ(job.teacher.path, "a: b");
    EXPECT_EQ(job.name, "x=y");
    EXPECT_TRUE(job.export_to.formats.empty());
}

TEST(JobReader, values_in_quotes_as_defaults_print_them) {
    const Job job = parse_job("", "job.yaml",
                              {"select.budget=\"50%\"", "walltime='01:00:00'", "data.training=\"a b.h5\"", "seed='3'"});
    EXPECT_EQ(option<std::string>(job.select.options, "budget"), "50%");
    EXPECT_EQ(job.walltime, "01:00:00");
    EXPECT_EQ(job.data.training, "a b.h5");
    EXPECT_EQ(job.seed, 3);
    EXPECT_TRUE(contains(problem("", {"name=\"a"}), "--set name=\"a: not valid YAML"));
}

TEST(JobReader, wrong_overrides) {
    EXPECT_TRUE(contains(problem("", {"align.tokens"}), "--set align.tokens: has no \"=\""));
    EXPECT_TRUE(contains(problem("", {"align.token=5"}), "did you mean \"align.tokens\"?"));
    EXPECT_TRUE(contains(problem("", {"align=5"}), "is a section, not a key"));
    EXPECT_TRUE(contains(problem("", {"select.layers=[1"}), "not valid YAML"));
}

TEST(JobReader, files) {
    EXPECT_TRUE(contains(error_text([] { read_job("/nowhere/job.yaml"); }), "/nowhere/job.yaml: no such job file"));
    EXPECT_TRUE(contains(error_text([] { read_job("/tmp"); }), "/tmp: cannot be read as a job file"));
    const auto path = std::filesystem::path(testing::TempDir()) / "amalgam_job_reader_test.yaml";
    std::ofstream(path) << "name: from-file\nteacher: {path: models/a}\n";
    const Job job = read_job(path, {"seed=3"});
    EXPECT_EQ(job.name, "from-file");
    EXPECT_EQ(job.teacher.path, "models/a");  // relative to the current directory, hence unchanged
    EXPECT_EQ(job.seed, 3);
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace amalgam
