# The tests of plans share a model and a card.
add_library(soulchat_plan_fixture STATIC plan_fixture.c)
target_link_libraries(soulchat_plan_fixture PUBLIC soulchat_testing soulchat_train
                      PRIVATE soulchat_options)
foreach(subject cost plan)
  target_link_libraries(test_train_${subject} PRIVATE soulchat_plan_fixture)
endforeach()
