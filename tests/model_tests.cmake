# Tests of the network that judge it by the float64 reference operators.
add_library(soulchat_model_fixture STATIC model_fixture.c glm_look.c)
target_link_libraries(soulchat_model_fixture PUBLIC soulchat_testing soulchat_model soulchat_ref
                      PRIVATE soulchat_options)
foreach(subject plan glm grad pack decode load half units flight)
  if(TARGET test_model_${subject})
    target_link_libraries(test_model_${subject} PRIVATE soulchat_model_fixture)
  endif()
endforeach()
