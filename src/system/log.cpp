// SPDX-License-Identifier: Apache-2.0
#include "system/log.h"

#include <boost/core/null_deleter.hpp>
#include <boost/log/attributes/clock.hpp>
#include <boost/log/core.hpp>
#include <boost/log/expressions.hpp>
#include <boost/log/sinks/sync_frontend.hpp>
#include <boost/log/sinks/text_ostream_backend.hpp>
#include <boost/log/sources/record_ostream.hpp>
#include <boost/log/sources/severity_logger.hpp>
#include <boost/log/support/date_time.hpp>
#include <boost/make_shared.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

#include "system/error.h"
#include "system/printable.h"

namespace amalgam {

std::ostream& operator<<(std::ostream& stream, LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return stream << "debug";
        case LogLevel::info:
            return stream << "info";
        case LogLevel::warning:
            return stream << "warning";
        case LogLevel::error:
            return stream << "error";
    }
    return stream;
}

namespace {

namespace expr = boost::log::expressions;
using Backend = boost::log::sinks::text_ostream_backend;
using Sink = boost::log::sinks::synchronous_sink<Backend>;

/// "[14:03:59] info text"
boost::shared_ptr<Sink> add_sink(const boost::shared_ptr<std::ostream>& stream) {
    auto backend = boost::make_shared<Backend>();
    backend->add_stream(stream);
    backend->auto_flush(true);  // a killed job must not take its last lines along
    auto sink = boost::make_shared<Sink>(backend);
    sink->set_formatter(expr::stream << "[" << expr::format_date_time<boost::posix_time::ptime>("TimeStamp", "%H:%M:%S")
                                     << "] " << expr::attr<LogLevel>("Severity") << " " << expr::smessage);
    boost::log::core::get()->add_sink(sink);
    return sink;
}

class Logger {
  public:
    Logger() {
        boost::log::core::get()->add_global_attribute("TimeStamp", boost::log::attributes::local_clock());
        add_sink(boost::shared_ptr<std::ostream>(&std::cerr, boost::null_deleter()));
    }

    void start(int rank, int ranks, const std::string& host) {
        rank_ = rank;
        set_level();
        prefix_ = ranks > 1 ? text("[rank ", rank, " of ", ranks, ", ", host.substr(0, host.find('.')), "] ") : "";
    }

    bool is_root() const { return rank_ == 0; }
    const std::string& prefix() const { return prefix_; }
    void append_to(const std::string& path);

    void write(LogLevel level, const std::string& line) {
        if (level < lowest_) return;
        BOOST_LOG_SEV(source_, level) << printable(line);
    }

  private:
    void set_level();

    boost::log::sources::severity_logger_mt<LogLevel> source_;
    boost::shared_ptr<Sink> file_;
    LogLevel lowest_ = LogLevel::info;
    int rank_ = 0;
    std::string prefix_;
};

void Logger::append_to(const std::string& path) {
    auto stream = boost::make_shared<std::ofstream>(path, std::ios::app);
    if (!stream->is_open())
        throw Error(
            text(path, ": cannot be opened for writing: ", std::strerror(errno), " (the log of the run goes there)"),
            ExitCode::storage);
    if (file_) boost::log::core::get()->remove_sink(file_);
    file_ = add_sink(stream);
}

void Logger::set_level() {
    const char* wanted = std::getenv("AMALGAM_LOG");
    if (wanted == nullptr || *wanted == '\0') return;
    for (LogLevel level : {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error})
        if (text(level) == wanted) {
            lowest_ = level;
            return;
        }
    if (is_root())
        write(LogLevel::warning, text("AMALGAM_LOG is \"", wanted,
                                      "\" (there is no such level, info is used); use debug, info, warning or error"));
}

Logger& logger() {
    static Logger the_logger;
    return the_logger;
}

}  // namespace

void start_logging(int rank, int ranks, const std::string& host) {
    logger().start(rank, ranks, host);
}

void log_to_file(const std::string& path) {
    if (logger().is_root()) logger().append_to(path);
}

void log_all(LogLevel level, const std::string& message) {
    if (logger().is_root()) logger().write(level, message);
}

void log_rank(LogLevel level, const std::string& message) {
    logger().write(level, logger().prefix() + message);
}

}  // namespace amalgam
