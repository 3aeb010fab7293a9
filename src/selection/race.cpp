// SPDX-License-Identifier: Apache-2.0
#include "selection/race.h"

#include <algorithm>
#include <exception>
#include <sstream>

#include "evaluation/statistics.h"
#include "rules/kept_curve.h"
#include "selection/candidate_state.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/finite.h"
#include "system/log.h"

namespace amalgam {
namespace {

class Race {
  public:
    Race(const RaceSetup& setup, Measurement& measurement)
        : setup_(setup), world_(setup.world), group_(setup.groups.group), measurement_(measurement) {}

    bool run() {
        ScoreTable table;
        table.gates = setup_.gates;
        table.all_linear_kl = measurement_.all_linear_kl();
        if (!all_finite(table.all_linear_kl))  // the same on all ranks
            throw SharedError(text("score: the held-out KL of the aligned student is not finite (no candidate can be "
                                   "measured against it); its checkpoint is bad: align with a lower "
                                   "align.optimizer.learning_rate in a run of another name"),
                              ExitCode::diverged);

        ScoresSoFar so_far = setup_.start;  // the same on all ranks
        for (int64_t round = 0;; ++round) {
            const auto next = next_candidates(setup_.rule, so_far);
            if (next.empty()) break;
            if (!finish_round(round, next, so_far.scored)) return false;
            append_scores(table, so_far.scored);
            if (!setup_.rule.scorer->distils) tell_of_round(round, so_far.scored, next.size());
        }
        fault_point("score.gather");
        world_.on_root([&] { gather(table); });
        return true;
    }

  private:
    /// The best candidate before `next` that keeps as many layers, where the rule races them.
    std::optional<int64_t> to_beat(const std::vector<ScoredCandidate>& scored,
                                   const std::vector<Candidate>& next) const {
        const auto kept = [](const Candidate& one) { return softmax_layers(one.layout).size(); };
        const size_t count = kept(next[0]);
        if (!setup_.races) return std::nullopt;
        for (const Candidate& one : next)
            if (kept(one) != count) return std::nullopt;
        for (const size_t place : ranking(scored))
            if (kept(scored[place].candidate) == count) return int64_t(place);
        return std::nullopt;
    }

    /// False if a stop was asked for before all of them were done.
    bool finish_round(int64_t round, const std::vector<Candidate>& next, const std::vector<ScoredCandidate>& scored) {
        const auto first = int64_t(candidates_.size());
        candidates_.insert(candidates_.end(), next.begin(), next.end());
        diverged_.resize(candidates_.size(), 0.0);
        const std::vector<int64_t> missing = missing_candidates(first);
        const int64_t count = most_candidates(setup_.rule, setup_.start);
        if (round == 0)
            info(text("score: ", missing.size(), count > int64_t(next.size()) ? " of at most " : " of ", count,
                      " candidates to do", count > int64_t(next.size()) ? " in this round, " : ", ",
                      setup_.groups.count, " groups of ", setup_.groups.size, " ranks"));
        std::vector<int64_t> own;
        for (size_t i = 0; i < missing.size(); ++i)
            if (int64_t(i) % setup_.groups.count == setup_.groups.mine) own.push_back(missing[i]);
        if (world_.any(measure(own, to_beat(scored, next)))) return false;
        expect_none_diverged();
        return true;
    }

    /// Of the candidates that have none yet: what comes next depends on them. The root keeps their results.
    void append_scores(ScoreTable& table, std::vector<ScoredCandidate>& scored) const {
        const size_t first = scored.size();
        std::vector<ScoredCandidate> latest;
        std::string names;  // of what was measured of each, a line each
        world_.on_root([&] {
            for (size_t c = first; c < candidates_.size(); ++c) {
                table.candidates.push_back(read_candidate(setup_.candidate_file(int64_t(c)), candidates_[c]));
                const CandidateResult& result = table.candidates.back();
                latest.push_back({candidates_[c], result.score(), result.measured()});
            }
            for (const auto& [name, value] : latest.front().measured) names += name + "\n";
        });
        std::istringstream lines(world_.broadcast(names));
        latest.resize(candidates_.size() - first);
        for (size_t i = 0; i < latest.size(); ++i) latest[i].candidate = candidates_[first + i];
        broadcast(latest, [](ScoredCandidate& one) -> double& { return one.score; });
        for (std::string name; std::getline(lines, name);)
            broadcast(latest, [&](ScoredCandidate& one) -> double& { return one.measured[name]; });
        scored.insert(scored.end(), latest.begin(), latest.end());
    }

    template <class Value>
    void broadcast(std::vector<ScoredCandidate>& scored, const Value& value) const {
        std::vector<double> values;
        for (ScoredCandidate& one : scored) values.push_back(value(one));
        world_.broadcast(std::span<double>(values));
        for (size_t i = 0; i < scored.size(); ++i) value(scored[i]) = values[i];
    }

    void tell_of_round(int64_t round, const std::vector<ScoredCandidate>& scored, size_t count) const {
        const std::vector<ScoredCandidate> latest(scored.end() - std::ptrdiff_t(count), scored.end());
        const ScoredCandidate& best = latest[ranking(latest).front()];
        info(text("score: round ", round + 1, ", ", count, count == 1 ? " candidate" : " candidates", "; the best is ",
                  describe(best.candidate), ", score ", best.score));
    }

    bool is_measured(int64_t number) const {
        const std::filesystem::path file = setup_.candidate_file(number);
        if (!std::filesystem::exists(file)) return false;
        try {
            const Candidate& expected = candidates_[size_t(number)];
            const CandidateResult found = read_candidate(file, expected);
            const bool ours = found.number == number && found.candidate == expected;
            if (ours && found.is_finite()) return true;
            warn(text(file.string(), ours ? ": its KL is not finite; it is scored again"
                                          : ": is of another candidate; it is scored again"));
        } catch (const std::exception& error) {  // damage has many faces
            warn(text(error.what(), "; the candidate is scored again"));
        }
        return false;
    }

    /// Candidates without a file that can be read: a damaged one is made again, since nothing but its candidate depends
    /// on it. The root looks, so that all ranks deal the same ones out.
    std::vector<int64_t> missing_candidates(int64_t first) const {
        std::string there(candidates_.size(), 1);
        world_.on_root([&] {
            for (size_t c = size_t(first); c < there.size(); ++c) there[c] = is_measured(int64_t(c));
        });
        there = world_.broadcast(there);
        std::vector<int64_t> missing;
        for (size_t c = size_t(first); c < there.size(); ++c)
            if (!there[c]) missing.push_back(int64_t(c));
        return missing;
    }

    /// True if a stop was asked for before all of the group's `own` candidates were done. A rank that fails must not
    /// leave the others waiting at the end of the stage: failures are agreed on there.
    bool measure(const std::vector<int64_t>& own, std::optional<int64_t> to_beat) {
        bool stopped = false;
        std::exception_ptr failure;
        const auto in_step = size_t(measurement_.in_step(int64_t(own.size())));
        if (in_step > 1) info(text("score: ", in_step, " candidates are trained in step"));
        for (size_t first = 0; first < own.size() && !stopped && !failure; first += in_step) {
            try {
                measurement_.expect_better_than(to_beat);
                const auto begin = own.begin() + std::ptrdiff_t(first);
                stopped = !measure_in_step({begin, begin + std::ptrdiff_t(std::min(in_step, own.size() - first))});
            } catch (const SharedError&) {
                failure = std::current_exception();
            } catch (...) {
                if (group_.size() > 1) throw;  // the others of the group wait for this rank: the job has to be ended
                failure = std::current_exception();
            }
        }
        world_.together([&] {
            if (failure) std::rethrow_exception(failure);
        });
        return stopped;
    }

    struct Running {
        int64_t number;
        std::unique_ptr<CandidateInTraining> candidate;
    };

    /// Trains them in turn, step by step. False if a stop was asked for before all candidates were done.
    bool measure_in_step(const std::vector<int64_t>& numbers) {
        measurement_.begin(int64_t(numbers.size()));
        std::vector<Running> running;
        for (const int64_t number : numbers)
            unless_it_diverges(number, [&] {
                running.push_back({number, measurement_.make(number, candidates_[size_t(number)])});
            });
        const auto for_each = [&](const std::function<void(Running&)>& work) {
            std::erase_if(running, [&](Running& one) { return !unless_it_diverges(one.number, [&] { work(one); }); });
        };
        const auto all_done = [&] {  // those that were stopped before are ahead of the others
            return std::all_of(running.begin(), running.end(), [](const Running& r) { return r.candidate->is_done(); });
        };
        while (!all_done()) {
            const Stopwatch watch;
            for_each([](Running& one) {
                if (!one.candidate->is_done()) one.candidate->step();
            });
            measurement_.end_step();
            double cost = 0.0;  // of the next step, in steps like this one
            for (const Running& one : running) cost = std::max(cost, one.candidate->next_step_cost());
            const bool stop = setup_.stop.ask(group_, watch.seconds() * cost).stop;
            if (!stop || all_done()) continue;
            for_each([&](Running& one) {
                const int64_t steps = one.candidate->save();
                if (group_.is_root())
                    log_rank(LogLevel::info, text("score: candidate ", one.number, " is saved after step ", steps,
                                                  "; nothing of it is lost"));
            });
            return false;
        }
        for_each([&](Running& one) { keep(one.number, one.candidate->result()); });
        return !setup_.stop.stopping();
    }

    /// False if it did: all ranks of the group say so alike. The other candidates go on.
    bool unless_it_diverges(int64_t number, const std::function<void()>& work) {
        try {
            work();
            return true;
        } catch (const SharedError& error) {
            if (error.code() != ExitCode::diverged) throw;
            if (group_.is_root()) {
                log_rank(LogLevel::error, error.what());
                diverged_[size_t(number)] = 1.0;
            }
            return false;
        }
    }

    /// A candidate without a score cannot be ranked, and a ranking without it would be another one.
    void expect_none_diverged() {
        world_.sum_in_place(std::span<double>(diverged_));
        std::string names;
        for (size_t c = 0; c < diverged_.size(); ++c)
            if (diverged_[c] > 0.0)
                names += text(names.empty() ? "" : "; ", "candidate ", c, ", ", describe(candidates_[c]));
        if (names.empty()) return;
        throw SharedError(text("score: diverged: ", names,
                               " (without a finite KL it cannot be ranked; the others' files are kept); lower "
                               "score.optimizer.learning_rate in a run of another name, which takes over transfer and "
                               "align with reuse"),
                          ExitCode::diverged);
    }

    void keep(int64_t number, CandidateResult result) {
        const std::filesystem::path file = setup_.candidate_file(number);
        group_.on_root([&] {
            write_candidate(file, result, setup_.provenance);
            CandidateState(file).keep_only(0);
        });
        if (!group_.is_root() || !setup_.rule.scorer->distils) return;
        const std::string who = "score: " + describe(result.candidate) + ": ";
        const int64_t skipped = result.logged.empty() ? 0 : result.logged.back().skipped_updates;
        if (skipped > 0) log_rank(LogLevel::warning, text(who, skipped, " updates skipped"));
        const auto kl = mean_and_error(result.kl.back());
        log_rank(LogLevel::info, text(who, "held-out KL ", kl.mean, plus_minus(kl.standard_error, 6), " nat/token (",
                                      format_duration(result.seconds), ")"));
    }

    void gather(const ScoreTable& table) const {
        double measured = 0.0;
        int64_t early = 0;
        for (const CandidateResult& candidate : table.candidates) {
            measured += candidate.measured_share;
            early += candidate.measured_share < 1.0;
        }
        if (early > 0)
            info(text("score: ", early, " of ", table.candidates.size(), " candidates left early; ",
                      int64_t(100.0 * (1.0 - measured / double(table.candidates.size())) + 0.5),
                      " % of the tokens were left out"));
        for (const CandidateResult& candidate : table.candidates)
            if (candidate.rank != 0)  // the first group writes its rows as it goes
                for (const StepMetrics& row : candidate.logged) setup_.metrics.append_foreign(row);
        write_scores(setup_.scores_file, table, setup_.provenance);
        for (size_t c = 0; c < candidates_.size(); ++c)  // what a kill left that came just after a candidate's end
            CandidateState(setup_.candidate_file(int64_t(c))).keep_only(0);
    }

    const RaceSetup& setup_;
    const Communicator &world_, &group_;
    Measurement& measurement_;
    std::vector<Candidate> candidates_;  // of all rounds so far
    std::vector<double> diverged_;       // by number: how many groups have seen it diverge
};

}  // namespace

RaceGroups race_groups(const Communicator& world, int64_t size) {
    const int64_t mine = int64_t(world.rank()) / size;
    return {world.size() / size, size, mine, world.split(int(mine))};
}

bool race(const RaceSetup& setup, Measurement& measurement) {
    return Race(setup, measurement).run();
}

}  // namespace amalgam
