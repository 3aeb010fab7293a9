# SPDX-License-Identifier: Apache-2.0
# cmake -DPATTERN=regex -P expect_failure.cmake -- COMMAND...
# Succeeds if the command fails (any exit status but 0) and its output matches the pattern.

set(command)
set(found_separator FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(found_separator)
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(found_separator TRUE)
  endif()
endforeach()

execute_process(COMMAND ${command} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
message("${output}\nexit status: ${status}")
if(status EQUAL 0)
  message(FATAL_ERROR "the command should have failed")
endif()
if(NOT output MATCHES "${PATTERN}")
  message(FATAL_ERROR "the output should match \"${PATTERN}\"")
endif()
