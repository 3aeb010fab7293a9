// SPDX-License-Identifier: Apache-2.0
#include "job/format_check.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "exports/formats.h"
#include "job/job_values.h"
#include "job/student_spec.h"
#include "rules/budget.h"

namespace amalgam {
namespace {

class FormatCheck {
  public:
    FormatCheck(const Job& job, const std::optional<ModelConfig>& teacher, Findings& findings)
        : job_(job), teacher_(teacher), findings_(findings) {}

    void all() {
        std::set<std::string> distinct;
        const ModelSpec student = exported_student();
        note_windows();
        for (const std::string& format : job_.export_to.formats) {
            findings_.problem_if(!distinct.insert(format).second, "export.formats names ", format,
                                 " twice (a mistake?) remove one");
            const auto refusal = find_export_format(format).refusal(student);
            findings_.problem_if(refusal.has_value(), "export.formats: ", refusal.value_or(""), "; or take ", format,
                                 " out of export.formats");
            findings_.note_if(
                !teacher_ && job_.student.output_norm_eps == OutputNormEps::reference &&
                    !find_export_format(format).scales_for_eps(),
                "export.formats: ", format,
                " has one eps for all norms, so student.output_norm_eps: reference can be written only if the "
                "teacher's is 1e-5");
        }
    }

  private:
    /// Scores may choose a layer that no format can express.
    void note_windows() {
        if (!teacher_ || job_.export_to.formats.empty() || selection_rule(job_.select.rule).scorer == nullptr) return;
        const auto windowed =
            std::count_if(teacher_->window.begin(), teacher_->window.end(), [](int64_t window) { return window > 0; });
        findings_.note_if(
            windowed > 0, "export.formats: ", windowed, " of ", teacher_->window.size(),
            " layers of the teacher have a sliding window, which no format can express: if the scores choose one of "
            "them to keep softmax, the run stops before distill");
    }

    /// What the export will get, as far as it is known: of layouts that the scores will decide, one that can be written
    /// if any can. Of a teacher that is not there yet nothing is held against the formats.
    ModelSpec exported_student() {
        ModelConfig teacher;
        if (teacher_) {
            teacher = *teacher_;
        } else {
            teacher.hidden_size = teacher.head_dim = 64;
            teacher.query_heads = teacher.key_value_heads = 1;
            teacher.layers = 2;
            teacher.rms_norm_eps = 1e-5;
            teacher.window = {0, 0};
        }
        std::vector<int64_t> kept;
        try {
            kept = likely_layers(teacher);
        } catch (const Error&) {  // a budget that check_selection has refused
        }
        return student_spec(job_.student, teacher, keep_softmax(teacher.layers, job_.student.mixer, kept));
    }

    std::vector<int64_t> likely_layers(const ModelConfig& teacher) const {
        const SelectionRule& rule = selection_rule(job_.select.rule);
        std::vector<int64_t> layers;
        if (rule.scorer == nullptr) {
            layers = rule.choose(job_.select.options, teacher.layers, {});
            std::erase_if(layers, [&](int64_t layer) { return layer >= teacher.layers; });
            return layers;
        }
        layers.resize(size_t(teacher.layers));
        std::iota(layers.begin(), layers.end(), int64_t{0});
        std::stable_partition(layers.begin(), layers.end(),
                              [&](int64_t layer) { return teacher.window[size_t(layer)] == 0; });
        layers.resize(size_t(likely_kept_layers(job_.select, teacher.layers)));
        return layers;
    }

    const Job& job_;
    const std::optional<ModelConfig>& teacher_;
    Findings& findings_;
};

}  // namespace

void check_formats(const Job& job, const std::optional<ModelConfig>& teacher, Findings& findings) {
    FormatCheck(job, teacher, findings).all();
}

}  // namespace amalgam
