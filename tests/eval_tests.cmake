# Tests of generation share a small model.
foreach(subject gen answer)
  if(TARGET test_eval_${subject})
    target_sources(test_eval_${subject} PRIVATE gen_fixture.c)
  endif()
endforeach()
if(TARGET test_eval_gen)
  target_sources(test_eval_gen PRIVATE glm_look.c)
endif()
