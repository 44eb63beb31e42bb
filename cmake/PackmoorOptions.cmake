# Compiler settings that every target shares.

set(PACKMOOR_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize= takes them")
option(PACKMOOR_FUZZ "Build the fuzzers with libFuzzer (clang)" OFF)
option(PACKMOOR_WERROR "Treat warnings as errors" ON)

find_program(PACKMOOR_CCACHE ccache)
if(PACKMOOR_CCACHE)
  # Without this ccache gives up on every file that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${PACKMOOR_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()
find_program(PACKMOOR_LLD ld.lld)
if(PACKMOOR_LLD)
  add_link_options(-fuse-ld=lld)
endif()

add_compile_options(-Wall -Wextra -Wno-unused-parameter)
# KJ's and g++ 12's own false alarms: inheritance without virtual destructors is KJ's idiom, and
# g++ 12 sees uninitialised and dangling members in coroutine frames where there are none, and,
# optimising, reads and writes beyond KJ's empty functors and std::string's local buffer.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds>
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overread>
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overflow>
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(PACKMOOR_WERROR)
  add_compile_options(-Werror)
endif()
# Debug information: enough for stack traces and perf, at a fraction of the full size.
string(REPLACE "-g" "-g1" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")
string(REPLACE "-g" "-g1" CMAKE_CXX_FLAGS_DEBUG "${CMAKE_CXX_FLAGS_DEBUG}")
add_compile_options(-fno-omit-frame-pointer)

if(PACKMOOR_SANITIZE)
  add_compile_options(-fsanitize=${PACKMOOR_SANITIZE} -O1)
  add_link_options(-fsanitize=${PACKMOOR_SANITIZE})
  if(PACKMOOR_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
    # KJ and Cap'n Proto of the distribution are built without type information for these.
    add_compile_options(-fno-sanitize=vptr)
    add_link_options(-fno-sanitize=vptr)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
      # clang 14 cannot emit this check's data for coroutines.
      add_compile_options(-fno-sanitize=function)
    endif()
  endif()
endif()
if(PACKMOOR_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
