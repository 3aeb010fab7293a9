// SPDX-License-Identifier: Apache-2.0
#include "training/metrics.h"

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

StepMetrics example() {
    StepMetrics m;
    m.stage = "align";
    m.step = 12;
    m.steps = 48;
    m.tokens = 6144;
    m.losses = {0.5, 0.25, 0.75};
    m.gradient_norm = 2.0;
    m.learning_rate = 1e-3;
    m.tokens_per_second = 1234.5;
    m.memory_gib = 1.5;
    m.skipped_updates = 3;
    m.seconds_left = 45.0;
    return m;
}

class MetricsFiles : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "metrics.csv";
    std::vector<std::string> lines() const {
        std::ifstream stream(path);
        std::vector<std::string> all;
        for (std::string line; std::getline(stream, line);) all.push_back(line);
        return all;
    }
};

TEST_F(MetricsFiles, a_row_for_the_step_and_one_for_each_layer) {
    MetricsFile(path).append(example());
    const auto rows = lines();
    ASSERT_EQ(rows.size(), 4U);
    EXPECT_EQ(rows[0],
              "time_s,stage,candidate,layer,step,tokens,loss,gradient_norm,learning_rate,tokens_per_second,memory_gib,"
              "skipped_updates");
    EXPECT_EQ(rows[1].substr(rows[1].find(',')), ",align,,,12,6144,0.5,2,0.001,1234.5,1.5,3");
    EXPECT_EQ(rows[2].substr(rows[2].find(',')), ",align,,0,12,6144,0.25,,,,,");
    EXPECT_EQ(rows[3].substr(rows[3].find(',')), ",align,,1,12,6144,0.75,,,,,");
    for (const auto& row : rows) EXPECT_EQ(std::count(row.begin(), row.end(), ','), 11) << row;
}

TEST_F(MetricsFiles, a_second_start_appends_without_a_header) {
    MetricsFile(path).append(example());
    StepMetrics candidate = example();
    candidate.losses = {0.5};
    candidate.candidate = 7;
    MetricsFile(path).append(candidate);
    const auto rows = lines();
    ASSERT_EQ(rows.size(), 5U);
    EXPECT_NE(rows[4].find(",align,7,,12,"), std::string::npos) << rows[4];
}

TEST_F(MetricsFiles, rows_of_other_processes_have_no_time) {
    MetricsFile(path).append_foreign(example());
    const auto rows = lines();
    ASSERT_EQ(rows.size(), 4U);
    EXPECT_EQ(rows[1], ",align,,,12,6144,0.5,2,0.001,1234.5,1.5,3");
}

TEST_F(MetricsFiles, no_path_no_file) {
    MetricsFile({}).append(example());
    MetricsFile({}).append_foreign(example());
    EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(MetricsFiles, a_file_that_cannot_be_opened_is_a_storage_error) {
    const auto nowhere = folder / "missing" / "metrics.csv";
    test::expect_error([&] { MetricsFile file(nowhere); }, ExitCode::storage, {nowhere.string()});
}

TEST_F(MetricsFiles, the_progress_line_tells_what_people_watch) {
    StepMetrics m = example();
    EXPECT_EQ(progress_line(m),
              "align  step 12/48  loss 0.5  grad 2  1234 tokens/s  3 updates skipped  1.5 GiB  0:45 left");
    m.candidate = 3;
    m.utilisation = 0.4213;
    EXPECT_EQ(progress_line(m),
              "align candidate 3  step 12/48  loss 0.5  grad 2  1234 tokens/s  MFU 42.1 %  3 updates skipped  1.5 GiB  "
              "0:45 left");
}

}  // namespace
}  // namespace amalgam
