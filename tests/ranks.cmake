# Tests on several ranks share a fixture that forks them, and a program that is all of them.
add_library(soulchat_ranks_fixture STATIC ranks_fixture.c)
target_link_libraries(soulchat_ranks_fixture PUBLIC soulchat_testing soulchat_train
                      PRIVATE soulchat_options)
add_executable(ranks_program ranks_program.c)
set_target_properties(ranks_program PROPERTIES LINKER_LANGUAGE CXX
                      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(ranks_program PRIVATE soulchat_train soulchat_options)

foreach(subject comm rendezvous watchdog)
  target_link_libraries(test_train_${subject} PRIVATE soulchat_ranks_fixture)
  target_compile_definitions(test_train_${subject} PRIVATE
                             RANKS_PROGRAM="$<TARGET_FILE:ranks_program>")
  add_dependencies(test_train_${subject} ranks_program)
endforeach()
