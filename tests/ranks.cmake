# Tests on several ranks share a fixture that forks them.
add_library(soulchat_ranks_fixture STATIC ranks_fixture.c)
target_link_libraries(soulchat_ranks_fixture PUBLIC soulchat_testing soulchat_train
                      PRIVATE soulchat_options)
foreach(subject comm)
  target_link_libraries(test_train_${subject} PRIVATE soulchat_ranks_fixture)
endforeach()
