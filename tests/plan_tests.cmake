# The tests of plans share a model and a card.
add_library(soulchat_plan_fixture STATIC plan_fixture.c)
target_link_libraries(soulchat_plan_fixture PUBLIC soulchat_testing soulchat_train
                      PRIVATE soulchat_options)
foreach(subject cost plan)
  target_link_libraries(test_train_${subject} PRIVATE soulchat_plan_fixture)
endforeach()
if(NOT TARGET test_train_plan_open) # it needs shards, and so does what follows
  return()
endif()
target_link_libraries(test_train_scale PRIVATE soulchat_plan_fixture soulchat_train_fixture
                                               soulchat_ranks_fixture)
target_link_libraries(test_train_plan_open PRIVATE soulchat_train_fixture PkgConfig::jansson)

add_test(NAME e2e_plan COMMAND bash ${CMAKE_SOURCE_DIR}/tests/e2e/plan.sh
         WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(e2e_plan PROPERTIES TIMEOUT 900
                     ENVIRONMENT "SOULCHAT=$<TARGET_FILE:soulchat>;OMP_WAIT_POLICY=passive")
