# Fuzz targets: tests/fuzz/fuzz_<name>.c holds one LLVMFuzzerTestOneInput. With SOULCHAT_FUZZ it
# becomes bin/fuzz_<name>, a libFuzzer program; in every other build it becomes the test
# replay_<name>, which runs it over the files of tests/fuzz/corpus/<name> (tests/fuzz/README.md).
#
# The first line of the file says what is linked: "/* layer: data */".
file(GLOB fuzz_files CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/fuzz
     ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/fuzz_*.c)
foreach(file ${fuzz_files})
  string(REGEX REPLACE "^fuzz_(.*)\\.c$" "\\1" name ${file})
  set(path ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${file})
  file(STRINGS ${path} first_line LIMIT_COUNT 1)
  if(NOT first_line MATCHES "^/\\* layer: ([a-z]+) \\*/$")
    message(FATAL_ERROR "${path}:1: expected /* layer: NAME */, found: ${first_line}")
  endif()
  set(layer ${CMAKE_MATCH_1})
  if(replay_${name} IN_LIST left_out)
    continue()
  endif()
  if(SOULCHAT_FUZZ)
    add_executable(fuzz_${name} ${path})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(replay_${name} ${path} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/replay_main.c)
    set_target_properties(replay_${name} PROPERTIES
                          RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    add_test(NAME replay_${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
             COMMAND replay_${name} tests/fuzz/corpus/${name})
    set_tests_properties(replay_${name} PROPERTIES TIMEOUT 900)
  endif()
  foreach(target fuzz_${name} replay_${name})
    if(TARGET ${target})
      set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
      target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
      target_link_libraries(${target} PRIVATE soulchat_${layer} soulchat_options)
    endif()
  endforeach()
endforeach()
