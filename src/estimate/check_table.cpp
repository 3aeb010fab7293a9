// SPDX-License-Identifier: Apache-2.0
#include "estimate/check_table.h"

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

/// The first `left` cells are names.
void print_row(std::ostringstream& out, size_t left, const std::vector<std::string>& cells) {
    for (size_t i = 0; i < cells.size(); ++i)
        out << (i < left ? std::left : std::right) << std::setw(i < left ? 11 : 12) << cells[i];
    out << '\n';
}

std::string bytes_or_dash(double bytes) {
    return bytes > 0 ? readable_bytes(bytes) : "-";
}

void print_work(std::ostringstream& out, const Estimate& estimate) {
    print_row(out, 1, {"stage", "steps", "tokens", "flop", "time", "checkpoint", "its writing"});
    for (const StageEstimate& stage : estimate.stages)
        print_row(out, 1,
                  {stage.name, stage.steps > 0 ? std::to_string(stage.steps) : "-",
                   stage.tokens > 0 ? readable_count(stage.tokens) : "-", with_prefix(stage.flops, ""),
                   readable_seconds(stage.seconds), bytes_or_dash(stage.checkpoint_bytes),
                   stage.checkpoint_bytes > 0 ? readable_seconds(stage.checkpoint_seconds) : "-"});
}

void print_memory(std::ostringstream& out, const Estimate& estimate, const Machine& machine) {
    out << "\nMemory of a rank for every way of sharding, and what a rank receives (weights) and sends (gradients) in "
           "a step; * is what auto takes"
        << (machine.memory_per_rank > 0 ? "" : " (with --gpu-memory unknown: none)") << ".\n";
    print_row(out, 2,
              {"stage", "sharding", "weights", "masters", "moments", "gradients", "gathered", "teacher", "activations",
               "logits", "memory", "received", "sent"});
    for (const StageEstimate& stage : estimate.stages)
        for (size_t i = 0; i < stage.shardings.size(); ++i) {
            const ShardingEstimate& s = stage.shardings[i];
            const RankMemory& m = s.memory;
            std::vector<std::string> cells = {i == 0 ? stage.name : "",
                                              name_of(s.strategy) + (i == stage.automatic ? " *" : "")};
            for (const double bytes : {m.weights, m.masters, m.moments, m.gradients, m.gathered, m.teacher,
                                       m.activations, m.logits, m.total(), s.gathered_per_step, s.reduced_per_step})
                cells.push_back(bytes_or_dash(bytes));
            print_row(out, 2, cells);
        }
}

void print_fit(std::ostringstream& out, const Estimate& estimate, const Machine& machine) {
    bool fits = true;
    for (const StageEstimate& stage : estimate.stages) {
        const ShardingEstimate& chosen = stage.sharding();
        const double memory = chosen.memory.total(), most = machine.memory_per_rank;
        if (memory <= most) continue;
        fits = false;
        out << "Does not fit: " << stage.name << " needs about " << readable_bytes(memory) << " of the "
            << readable_bytes(most) << " of a rank (sharding: " << name_of(chosen.strategy) << "). ";
        const double fixed = memory - chosen.memory.activations - chosen.memory.logits;
        const ShardingEstimate& automatic = stage.shardings[stage.automatic];
        if (automatic.memory.total() <= most && stage.automatic != stage.chosen)
            out << "Sharding " << name_of(automatic.strategy)
                << " would fit: " << readable_bytes(automatic.memory.total()) << ".\n";
        else if (fixed >= most)
            out << "Weights and optimizer alone need " << readable_bytes(fixed) << ": use GPUs with more memory, or "
                << (stage.name == "score" ? "a larger score.ranks_per_candidate, whose ranks share a candidate's.\n"
                                          : "more of them and sharding.\n");
        else if (stage.micro_batch_sequences > 1)
            out << "Lower " << stage.name << ".micro_batch_sequences, now " << stage.micro_batch_sequences << ".\n";
        else
            out << "One sequence at a time is too much: use sharding.activations: recompute, ranks that share "
                   "each (sharding.context), shorter sequences or GPUs with more memory.\n";
    }
    if (fits) out << "Every stage fits the " << readable_bytes(machine.memory_per_rank) << " of a rank.\n";
}

void print_estimate(std::ostringstream& out, const Job& job, const Estimate& estimate, const Machine& machine) {
    out << "Teacher " << readable_count(estimate.teacher_parameters) << " parameters, student "
        << readable_count(estimate.student_parameters) << " with " << estimate.kept_layers << " softmax layers. "
        << machine.ranks << (machine.ranks == 1 ? " rank on " : " ranks on ") << machine.nodes()
        << (machine.nodes() == 1 ? " node, " : " nodes, ")
        << (compute_bytes(job, machine) == 2 ? "bfloat16" : "float32") << ", for " << machine.device << ": each rank "
        << with_prefix(machine.peak_flops, "flop/s") << " peak at " << std::lround(100 * machine.utilisation)
        << " %; files at " << with_prefix(machine.node_bandwidth, "B/s") << " per node.\n\n";
    print_work(out, estimate);
    print_memory(out, estimate, machine);
    out << "\nIn all " << readable_seconds(estimate.seconds) << ", " << with_prefix(estimate.flops, "flop")
        << ", and up to " << readable_bytes(estimate.disk_bytes) << " in " << job.run_folder() << ".\n";
    if (machine.memory_per_rank > 0) print_fit(out, estimate, machine);
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
