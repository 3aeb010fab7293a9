// SPDX-License-Identifier: Apache-2.0
#include "job/job_check_table.h"

#include <cmath>
#include <iomanip>
#include <sstream>

#include "system/error.h"

namespace amalgam {

namespace {

/// Three digits and a prefix of the powers of 1000.
std::string with_prefix(double value, const std::string& unit) {
    const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
    size_t power = 0;
    while (value >= 999.5 && power + 1 < std::size(prefixes)) {
        value /= 1000;
        ++power;
    }
    std::ostringstream out;
    out << std::setprecision(3) << value << ' ' << prefixes[power] << unit;
    std::string result = out.str();
    if (result.ends_with(' ')) result.pop_back();
    return result;
}

void print_list(std::ostringstream& out, const std::string& title, const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    out << title << '\n';
    for (const std::string& line : lines) out << "  - " << line << '\n';
}

void print_row(std::ostringstream& out, const std::vector<std::string>& cells) {
    for (size_t i = 0; i < cells.size(); ++i)
        out << (i == 0 ? std::left : std::right) << std::setw(i == 0 ? 9 : 12) << cells[i];
    out << '\n';
}

void print_estimate(std::ostringstream& out, const Job& job, const Estimate& estimate, const Machine& machine) {
    out << "Teacher " << readable_count(estimate.teacher_parameters) << " parameters, student "
        << readable_count(estimate.student_parameters) << " with " << estimate.kept_layers << " softmax layers. "
        << machine.ranks << (machine.ranks == 1 ? " rank, " : " ranks, ")
        << (compute_bytes(job) == 2 ? "bfloat16" : "float32") << ", each " << with_prefix(machine.peak_flops, "flop/s")
        << " peak at " << std::lround(100 * machine.utilisation) << " %.\n\n";
    print_row(out, {"stage", "steps", "tokens", "trained", "teacher", "activations", "memory/rank", "flop", "time",
                    "checkpoint"});
    for (const StageEstimate& stage : estimate.stages) {
        print_row(out,
                  {stage.name, stage.steps > 0 ? std::to_string(stage.steps) : "-",
                   stage.tokens > 0 ? readable_count(stage.tokens) : "-", readable_bytes(stage.trained_bytes),
                   readable_bytes(stage.teacher_bytes), readable_bytes(stage.activation_bytes),
                   readable_bytes(stage.memory_bytes()), with_prefix(stage.flops, ""), readable_seconds(stage.seconds),
                   stage.checkpoint_bytes > 0 ? readable_bytes(stage.checkpoint_bytes) : "-"});
    }
    out << "\nIn all " << readable_seconds(estimate.seconds) << ", " << with_prefix(estimate.flops, "flop")
        << ", and up to " << readable_bytes(estimate.disk_bytes) << " in " << job.run_folder() << ".\n";
    if (machine.memory_per_rank <= 0) return;
    bool fits = true;
    for (const StageEstimate& stage : estimate.stages) {
        if (stage.memory_bytes() <= machine.memory_per_rank) continue;
        fits = false;
        out << "Does not fit: " << stage.name << " needs about " << readable_bytes(stage.memory_bytes()) << " of the "
            << readable_bytes(machine.memory_per_rank) << " of a rank. ";
        const double fixed = stage.trained_bytes + stage.teacher_bytes;
        if (fixed >= machine.memory_per_rank)
            out << "Weights and optimizer alone need " << readable_bytes(fixed) << ": use a GPU with more memory.\n";
        else if (stage.micro_batch_sequences > 1)
            out << "Lower " << stage.name << ".micro_batch_sequences, now " << stage.micro_batch_sequences << ".\n";
        else
            out << "One sequence at a time is too much: use shorter sequences or a GPU with more memory.\n";
    }
    if (fits) out << "Every stage fits the " << readable_bytes(machine.memory_per_rank) << " of a rank.\n";
}

}  // namespace

std::string readable_bytes(double bytes) {
    return with_prefix(bytes, "B");
}

std::string readable_count(double count) {
    return with_prefix(count, "");
}

std::string readable_seconds(double seconds) {
    const int64_t total = std::max<int64_t>(1, std::llround(seconds));
    if (total < 60) return text(total, " s");
    if (total < 3600) return text(total / 60, " min ", total % 60, " s");
    if (total < 86400) return text(total / 3600, " h ", total % 3600 / 60, " min");
    return text(total / 86400, " d ", total % 86400 / 3600, " h");
}

std::string print_check(const Job& job, const Findings& findings, const std::optional<Estimate>& estimate,
                        const Machine& machine) {
    std::ostringstream out;
    print_list(out, "Problems: this job cannot run", findings.problems);
    print_list(out, "Notes", findings.notes);
    if (findings.problems.empty()) out << "No problems found.\n";
    if (estimate) {
        out << '\n';
        print_estimate(out, job, *estimate, machine);
    }
    return out.str();
}

}  // namespace amalgam
